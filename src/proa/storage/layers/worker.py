"""The unpack worker: one process per layer, confined to the layer's directory, that turns a blob into files.

        engine                                     worker (forked by the zygote)
          |  <-- {"pid"} + pidfd ---------------------  |
          |  --- job + [data fd, target fd] --------->  |
          |  --- further fds, the lower layers ------>  |
          |                                             |  chroot, drop privileges, decompress | hash | apply
          |  <-- {"result"} or {"error"} -------------  |  _exit

After the chroot nothing is imported, and an error leaves as a record on the socket: an image may hold files under every
path that Python would look at.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from proa.errors import Exhausted, Internal, ProaError, Unsupported
from proa.linux import capability, landlock
from proa.linux.process import PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, prctl
from proa.linux.sockets import receive_fds, send_fds
from proa.storage.layers.apply import apply
from proa.storage.layers.budget import Budget
from proa.storage.layers.decompress import decompress

__all__ = ["FDS_PER_MESSAGE", "MESSAGE_LIMIT", "run"]

MESSAGE_LIMIT = 64 << 10
FDS_PER_MESSAGE = 250

# A zstd window (128 MiB), chunks in flight, thread stacks: far below. Python's own address space is about 100 MiB.
_ADDRESS_SPACE = 2 << 30
_CHUNKS_IN_FLIGHT = 16

_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_FOWNER, _CAP_FSETID = 0, 1, 3, 4
_CAP_SYS_ADMIN, _CAP_MKNOD, _CAP_SETFCAP = 21, 27, 31
# SYS_ADMIN only for trusted.overlay.opaque; landlock forbids mounting all the same.
_KEPT = sum(
    1 << number
    for number in (
        _CAP_CHOWN,
        _CAP_DAC_OVERRIDE,
        _CAP_FOWNER,
        _CAP_FSETID,
        _CAP_SYS_ADMIN,
        _CAP_MKNOD,
        _CAP_SETFCAP,
    )
)


def run(sock: socket.socket, zygote_pid: int) -> NoReturn:
    """Do the one job that comes over `sock` and leave the process."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != zygote_pid:
            os._exit(1)
        answer = _answer(sock)
        sock.send(json.dumps(answer).encode())
    except BaseException:  # noqa: BLE001 - a traceback would read files of the image
        os._exit(1)
    os._exit(0)


def _answer(sock: socket.socket) -> dict[str, Any]:
    try:
        return {"result": _unpack(sock)}
    except ProaError as error:
        return {"error": error.to_record()}
    except MemoryError:
        return {"error": Exhausted("the unpack worker ran out of memory", code="layer-memory").to_record()}
    except Exception as error:  # noqa: BLE001 - see run
        text = f"unpack worker failed: {type(error).__name__}: {error}"
        return {"error": Internal(text[:1000], code="unpack-worker").to_record()}


def _unpack(sock: socket.socket) -> dict[str, Any]:
    pidfd = os.pidfd_open(os.getpid())
    send_fds(sock, json.dumps({"pid": os.getpid()}).encode(), [pidfd])
    os.close(pidfd)
    message, fds = receive_fds(sock, MESSAGE_LIMIT)
    if len(fds) != 2:
        raise Internal("unpack worker got no job", code="unpack-worker")
    job: dict[str, Any] = json.loads(message)
    data_fd, target_fd = fds
    lower_fds: list[int] = []
    while len(lower_fds) < job["lowers"]:
        _, more = receive_fds(sock, 1)
        if not more:
            raise Internal("unpack worker got too few directories", code="unpack-worker")
        lower_fds += more
    _confine(target_fd)
    budget = Budget(**job["budget"])
    pipeline = _Pipeline(job["compression"], data_fd, budget)
    applied = apply(
        iter(pipeline),
        target_fd,
        lower_fds,
        budget=budget,
        keep_owner=job["keep_owner"],
        skip_devices=job["skip_devices"],
        prefix=job["prefix"],
    )
    return {
        "diff_id": "sha256:" + pipeline.digest.hexdigest(),
        "tar_bytes": pipeline.size,
        "size_bytes": applied.size_bytes,
        "entries": applied.entries,
        "inodes": applied.inodes,
    }


def _confine(target_fd: int) -> None:
    """See nothing but the target directory (and the lower layers by their fds), and change nothing else."""
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []
    restricted = landlock.writable_only(target_fd)
    os.fchdir(target_fd)
    try:
        os.chroot(b".")
    except PermissionError as error:
        # An ordinary user outside a user namespace: entries cannot leave the directory, and landlock sees to it.
        if not restricted:
            raise Unsupported(
                "cannot confine the unpack worker: neither chroot nor landlock is available",
                code="unpack-confinement",
                hint="run the engine as root or in a user namespace",
            ) from error
    os.chdir(b"/" if not restricted or os.geteuid() == 0 else b".")
    capability.clear_ambient()
    _, permitted, _ = capability.capget()
    capability.capset(permitted & _KEPT, permitted & _KEPT, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))


class _Pipeline:
    """Decompress and hash in one thread while the caller parses and writes in another; codecs, hashes and system calls
    run without the interpreter lock."""

    def __init__(self, compression: str, data_fd: int, budget: Budget) -> None:
        self._compression = compression
        self._data_fd = data_fd
        self._budget = budget
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_CHUNKS_IN_FLIGHT)
        self.digest = hashlib.sha256()
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        # A daemon thread: after a failure in the other one the process just ends.
        threading.Thread(target=self._produce, daemon=True).start()
        while True:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            if not item:
                return
            yield item

    def _produce(self) -> None:
        try:
            data_fd = self._data_fd
            for chunk in decompress(self._compression, lambda size: os.read(data_fd, size), self._budget):
                self.digest.update(chunk)
                self.size += len(chunk)
                self._queue.put(chunk)
            self._queue.put(b"")
        except BaseException as error:  # noqa: BLE001 - raised again by the consumer
            self._queue.put(error)
