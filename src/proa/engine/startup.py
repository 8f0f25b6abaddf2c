"""Start-up: gather what a monitor needs to start a container, descriptors included."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from proa.engine.catalog import Entry
from proa.engine.joined import Joined
from proa.engine.leftovers import cgroup_path
from proa.engine.log_options import log_options
from proa.engine.mount_sources import image_mounts
from proa.engine.namespaces import shared_namespaces
from proa.engine.runtimes import runtime_program
from proa.engine.secrets import give, target_of
from proa.engine.specgen import oci_config
from proa.engine.types import Container
from proa.engine.waking import how_to_wake
from proa.storage.records import disk_faults
from proa.storage.snapshots import Mount

if TYPE_CHECKING:
    from proa.engine.engine import Engine


@contextmanager
def start_request(
    engine: Engine, entry: Entry, joined: Joined
) -> Iterator[tuple[dict[str, Any], Mapping[str, int | Sequence[int]]]]:
    """The request for `Nursery.start_container` and its descriptors, which are closed afterwards.

    Raises Invalid, Unsupported, NotFound when the snapshot is gone.
    """
    record = entry.record
    directory = engine.catalog.path(entry)
    key = f"container:{record.id}"
    files = _write_files(directory, joined)
    given = give(record, engine.kept, engine.run)
    cgroup = "" if engine.abilities.no_limits else cgroup_path(engine.id, record.id, record.host.cgroup_parent)
    mounts = engine.storage.snapshots.mounts(key)
    waiting = engine.streams.take_waiting(record.id)
    fds: dict[str, int | Sequence[int]] = {"attach": [fd for _, fd in waiting]}
    if joined.netns_fd >= 0:
        fds["netns"] = joined.netns_fd
    if joined.userns_fd >= 0:
        fds["userns"] = joined.userns_fd
    try:
        with shared_namespaces(record, engine.catalog) as shared:
            request = {
                "id": record.id,
                "dir": str(directory),
                "socket": str(engine.socket_path(record.id)),
                "config": oci_config(
                    record,
                    joined,
                    files=files,
                    cgroup=cgroup,
                    shared=shared,
                    images=image_mounts(engine, record),
                    given=given,
                ),
                "rootfs": [_root_mount(m, mapped=record.id_maps is not None) for m in mounts],
                "stdin": record.config.open_stdin,
                "stdin_once": record.config.stdin_once,
                "tty": record.config.tty,
                "log": log_options(record),
                "cgroup": {"name": cgroup},
                "attach": [attach for attach, _ in waiting],
                "durable": not record.host.auto_remove,
                "wake": how_to_wake(engine.run, record.host.restart_policy),
                "runtime": runtime_program(record.host.runtime),
            }
            yield request, fds
    finally:
        for _, fd in waiting:
            os.close(fd)


def _root_mount(mount: Mount, *, mapped: bool) -> dict[str, Any]:
    out = msgspec.structs.asdict(mount)
    if mapped:
        out["options"] = (*mount.options, "idmap")  # on disk the ids are the image's
    return out


def _write_files(directory: Path, joined: Joined) -> dict[str, str]:
    """Write /etc/hosts and its like into the container's directory; destination -> source."""
    out = {}
    for destination, data in joined.files.items():
        path = f"{directory}/{os.path.basename(destination)}"
        with disk_faults(path):
            # Made anew at every start; nobody reads it yet.
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, data)
                os.fchmod(fd, 0o644)  # the engine's umask is 077, the container's users must read it
            finally:
                os.close(fd)
        out[destination] = path
    return out


def bind_targets(record: Container) -> set[bytes]:
    """Paths, without leading slash, that starting the container made in its writable layer as places to mount on."""
    fixed = ("etc/hosts", "etc/hostname", "etc/resolv.conf", "dev", "proc", "sys")
    targets = [m.destination for m in record.mounts]
    targets += [target_of(request) for request in record.host.secrets or [] if not request.environment]
    return {p.encode() for p in fixed} | {target.lstrip("/").encode() for target in targets}
