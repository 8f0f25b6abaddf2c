"""The visitor: one process per copy, which enters a container's root and does one job there.

        engine                                     visitor (forked by the zygote)
          |  <-- {"pid"} + pidfd ---------------------  |
          |  --- job + [data fd, pidfd] ------------->  |  join the mount namespace, give up privileges
          |  === archive, by the data fd =============  |
          |  <-- {"result"} or {"error"} -------------  |  _exit

The pidfd is of a process in the container: its init, or one that holds the mounts of a container that does not run
(`monitor.mounts`). Nothing is imported after it was entered.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from typing import Any, NoReturn

from proa.errors import Invalid, ProaError, Unavailable
from proa.linux import capability
from proa.linux.process import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    PR_SET_NO_NEW_PRIVS,
    prctl,
    set_name,
    setns,
)
from proa.runtime.users import resolve_user
from proa.storage.layers.budget import DEFAULT_BUDGET, Budget
from proa.storage.layers.confine import confine_decoder, forbid_imports
from proa.storage.layers.decompress import CHUNK
from proa.storage.layers.jobs import serve, take, unknown
from proa.storage.layers.names import display
from proa.storage.layers.pipeline import Decoder
from proa.storage.layers.reader import TarReader
from proa.storage.roots.lookup import absolute, describe, look_up
from proa.storage.roots.packing import pack
from proa.storage.roots.placing import place

__all__ = ["run"]

_ADDRESS_SPACE = 1 << 30

_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_FOWNER, _CAP_FSETID, _CAP_MKNOD, _CAP_SETFCAP = 0, 1, 3, 4, 27, 31
_CAPABILITIES = sum(
    1 << number for number in (_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_FOWNER, _CAP_FSETID, _CAP_MKNOD, _CAP_SETFCAP)
)


def run(sock: socket.socket, zygote_pid: int) -> NoReturn:
    """Do the one job that comes over `sock` and leave the process."""
    set_name("proa-visit")
    serve(sock, zygote_pid, lambda sock: iter((_visit(sock),)), _failed)


def _failed(error: BaseException) -> ProaError:
    if not isinstance(error, OSError):
        return unknown(error, "the copy", memory="copy-memory", other="copy-worker")
    name = display(os.fsencode(error.filename)) if error.filename is not None else ""
    text = f"cannot copy {name}: {os.strerror(error.errno or 0)}"
    return Unavailable(text, code="copy-failed", subject=name, errno=error.errno)


def _visit(sock: socket.socket) -> dict[str, Any]:
    job, fds = take(sock)
    data_fd, container = fds
    path = absolute(job["path"])
    budget = Budget(**job["budget"]) if "budget" in job else DEFAULT_BUDGET
    own_devices = _enter(container, budget.memory_bytes)
    if job["verb"] == "place":
        return {"entries": _place(job, path, data_fd, budget, skip_devices=not own_devices)}
    status = look_up(path)
    found = describe(path, status)
    if job["verb"] == "look":
        return found
    return {"entries": pack(path, found["name"], _Pipe(data_fd))}


def _enter(container: int, memory_bytes: int) -> bool:
    """Join the container's mounts and, where it has one, its user namespace; returns whether devices can be made."""
    forbid_imports()
    own_user = True
    try:
        setns(container, CLONE_NEWUSER | CLONE_NEWNS)
        own_user = False
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as error:
        if error.errno != errno.EINVAL or not own_user:  # EINVAL: the container is in this user namespace
            raise
        setns(container, CLONE_NEWNS)
    os.close(container)
    os.chdir("/")
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    _, permitted, _ = capability.capget()
    capability.clear_ambient()
    capability.capset(permitted & _CAPABILITIES, permitted & _CAPABILITIES, 0)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE + memory_bytes,) * 2)
    return own_user


def _place(job: dict[str, Any], path: str, data_fd: int, budget: Budget, *, skip_devices: bool) -> int:
    try:
        root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        raise Invalid("extraction point is not a directory", code="no-directory", subject=path) from None
    except OSError:
        look_up(path)
        raise
    owner = None
    if job["owner"]:
        top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        owner = resolve_user(top, job["owner"])[:2]
    chunks: Iterator[bytes | memoryview]
    if job["compressed"]:
        chunks = iter(Decoder("any", data_fd, budget, confine_decoder))
    else:
        chunks = iter(lambda: os.read(data_fd, CHUNK), b"")
    return place(
        TarReader(chunks, budget),
        root_fd,
        owner=owner,
        keep_kinds=job["keep_kinds"],
        skip_devices=skip_devices,
    )


class _Pipe:
    """A sink that is a pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes) -> None:
        """Write all of it; the reader's going away ends this process's work (EPIPE)."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
