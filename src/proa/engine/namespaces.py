"""Namespaces: which a container has for itself, shares with the host, or with another container.

Another container's are joined by descriptors that the engine opens and keeps until the start is over: a path below
/proc/PID could belong to another process by then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from proa.engine import exits
from proa.engine.types import Container, HostConfig
from proa.errors import Conflict, Invalid, Unsupported
from proa.linux import process

if TYPE_CHECKING:
    from proa.engine.catalog import Catalog

OTHER = "container:"
# The mount namespace that holds the /dev/shm of the other container's IPC namespace.
SHARED_MEMORY = "mnt"
_MODES = {
    "pid": ("", "private", "host"),
    "ipc": ("", "none", "private", "shareable", "host"),
    "uts": ("", "private", "host"),
}


def _modes(host: HostConfig) -> dict[str, str]:
    return {"pid": host.pid_mode, "ipc": host.ipc_mode, "uts": host.uts_mode}


def check_namespaces(host: HostConfig, catalog: Catalog) -> None:
    """Refuse at create what cannot be. Raises Invalid in Docker's words, NotFound for another container."""
    for kind, mode in _modes(host).items():
        if mode.startswith(OTHER) and kind != "uts":
            if mode == OTHER:
                raise Invalid(f"invalid {kind.upper()} mode: {mode}", code=f"{kind}-mode")
            other = catalog.find(mode.removeprefix(OTHER)).record
            if kind == "ipc" and other.host.ipc_mode not in ("shareable", "host"):
                raise Conflict(
                    f"can't join IPC of container {other.id}: non-shareable IPC "
                    "(hint: use IpcMode:shareable for the donor container)",
                    code="ipc-not-shareable",
                    subject=other.id,
                )
        elif mode not in _MODES[kind]:
            raise Invalid(f"invalid {kind.upper()} mode: {mode[:100]}", code=f"{kind}-mode")
    namespaces(host, None, dict.fromkeys(_modes(host), ""))


@contextmanager
def shared_namespaces(record: Container, catalog: Catalog) -> Iterator[dict[str, str]]:
    """Kind -> path of what the container shares with others, valid inside the context; also SHARED_MEMORY.

    Raises NotFound, Conflict when the other container does not run.
    """
    opened: dict[str, int] = {}
    try:
        for kind, mode in _modes(record.host).items():
            if mode.startswith(OTHER):
                opened[kind] = _open(kind, mode.removeprefix(OTHER), record, catalog)
                if kind == "ipc":
                    opened[SHARED_MEMORY] = _open(SHARED_MEMORY, mode.removeprefix(OTHER), record, catalog)
        yield {kind: f"/proc/{os.getpid()}/fd/{fd}" for kind, fd in opened.items()}
    finally:
        for fd in opened.values():
            os.close(fd)


def _open(kind: str, name: str, record: Container, catalog: Catalog) -> int:
    entry = catalog.find(name)
    other = entry.record
    refused = Conflict(
        f"cannot join {'IPC' if kind == SHARED_MEMORY else kind.upper()} of a non running container: {other.id}",
        code=f"{kind}-container-stopped",
    )
    if other.id == record.id or not other.state.running:
        raise refused
    pid = other.state.pid
    try:
        fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        raise refused from None
    # The descriptor is the container's if the process is still the one the monitor started.
    state = exits.monitor_state(catalog.path(entry)) or {}
    try:
        same = process.start_time(pid) == state.get("start_time")
    except OSError:
        same = False
    if not same:
        os.close(fd)
        raise refused
    return fd


def namespaces(host: HostConfig, network: str | None, shared: Mapping[str, str]) -> list[dict[str, str]]:
    """OCI `linux.namespaces`. network: None for one of its own, "host", or a path; shared: paths by kind.

    Raises Invalid, Unsupported.
    """
    out = [{"type": "mount"}]
    for kind, mode in _modes(host).items():
        if kind in shared:
            out.append({"type": kind, "path": shared[kind]})
        elif mode.startswith(OTHER):
            raise Unsupported(f"{kind} mode {mode!r} is not supported here", code=f"{kind}-mode")
        elif mode != "host":
            out.append({"type": kind})
    if host.cgroupns_mode not in ("", "private", "host"):
        raise Invalid(f"invalid cgroup namespace mode {host.cgroupns_mode!r}", code="cgroupns-mode")
    if host.cgroupns_mode != "host":
        out.append({"type": "cgroup"})
    if network is None:
        out.append({"type": "network"})
    elif network != "host":
        out.append({"type": "network", "path": network})
    return out
