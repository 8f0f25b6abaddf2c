"""Visits: the engine's side of copies out of and into containers."""

from __future__ import annotations

import fcntl
import os
import select
from typing import Any, BinaryIO, cast

from proa.errors import TimedOut, from_record
from proa.storage.layers.archive import Sink
from proa.storage.layers.budget import Budget
from proa.storage.layers.decompress import detect
from proa.storage.layers.old_formats import old_format
from proa.storage.layers.workers import VISIT, Job, Workers

__all__ = ["look", "pack", "place"]

_PIECE = 256 << 10
_HEAD = 16
_PIPE_BYTES = 1 << 20
#: How long a file system inside the container may take to give the next bytes: FUSE and network mounts may hang.
STALL_MS = 120_000


def look(workers: Workers, container: int, path: str) -> dict[str, Any]:
    """What is at a path: name, size, mode (as in st_mode), mtime_ns, link_target.

    container: a pidfd of a process in it. Raises NotFound `path-not-found`, Invalid.
    """
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with workers.fork(VISIT) as job:
            job.send({"verb": "look", "path": path}, [container], null)
            return _result(job, null)
    finally:
        os.close(null)


def pack(workers: Workers, container: int, path: str, sink: Sink) -> None:
    """Write a tar archive of what is at a path, named by the path's last part. Raises as `look`, and Conflict."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        pass  # beyond the user's share of pipe memory: slower
    try:
        with workers.fork(VISIT) as job:
            try:
                job.send({"verb": "pack", "path": path}, [container], theirs)
            finally:
                os.close(theirs)
                theirs = -1
            poller = select.poll()
            poller.register(ours, select.POLLIN)
            while True:
                if not poller.poll(STALL_MS):
                    raise TimedOut(f"reading {path!r} gave nothing for {STALL_MS // 1000} s", code="copy-stalled")
                if not (data := os.read(ours, _PIECE)):
                    break
                sink.write(data)
            _result(job, ours)
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)


def place(
    workers: Workers,
    container: int,
    path: str,
    source: BinaryIO,
    *,
    budget: Budget,
    keep_kinds: bool = False,
    owner: str = "",
) -> None:
    """Place the members of a tar archive, compressed or not, in the directory at a path.

    keep_kinds: never replace a directory by something else or the other way round. owner: `user[:group]`, a name or
    number as the container knows it, whose the files shall be; "" for those the archive names.
    Raises as `look`, Corrupt and Invalid for a bad archive, Denied where it may not write, Exhausted.
    """
    peeked = _Peeked(source)
    with workers.fork(VISIT) as job:
        order = {
            "verb": "place",
            "path": path,
            "owner": owner,
            "keep_kinds": keep_kinds,
            "budget": budget._asdict(),
            "compressed": bool(old_format(peeked.head)) or detect(peeked.head) != "none",
        }
        job.send(order, [container], None)
        _result(job, cast("BinaryIO", peeked))


class _Peeked:
    """A source whose first bytes were looked at."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.head = b""
        while len(self.head) < _HEAD and (data := source.read(_PIECE)):
            self.head += data
        self._unread = self.head

    def read(self, size: int) -> bytes:
        """The next bytes."""
        if not self._unread:
            return self._source.read(size)
        data, self._unread = self._unread, b""
        return data


def _result(job: Job, source: BinaryIO | int) -> dict[str, Any]:
    answer = job.attend(source, None, None)
    if (error := answer.get("error")) is not None:
        raise from_record(error)
    result: dict[str, Any] = answer["result"]
    return result
