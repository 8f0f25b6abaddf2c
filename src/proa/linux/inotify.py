"""inotify(7): be told when a file grows or a directory changes."""

from __future__ import annotations

import os
import struct

from proa.linux._libc import Path, call, fail, path_bytes
from proa.linux.tuples import NamedTuple

IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000
IN_ISDIR = 0x40000000

# struct inotify_event { int wd; u32 mask, cookie, len; char name[]; }
INOTIFY_EVENT = struct.Struct("=iIII")

_inotify_init1 = call("inotify_init1")
_inotify_add_watch = call("inotify_add_watch")
_inotify_rm_watch = call("inotify_rm_watch")


class Event(NamedTuple):
    """One change: watch descriptor, IN_* mask, name inside a watched directory (else empty)."""

    watch: int
    mask: int
    name: bytes


def inotify_init() -> int:
    """A new, non-blocking, close-on-exec inotify fd."""
    fd = _inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        fail("inotify_init1")
    return fd


def inotify_add_watch(fd: int, path: Path, mask: int) -> int:
    """Watch `path`; returns the watch descriptor."""
    watch = _inotify_add_watch(fd, path_bytes(path), mask)
    if watch < 0:
        fail("inotify_add_watch", path)
    return watch


def inotify_rm_watch(fd: int, watch: int) -> None:
    """Stop watching."""
    if _inotify_rm_watch(fd, watch) < 0:
        fail("inotify_rm_watch")


def read_events(fd: int) -> list[Event]:
    """All events that are waiting; empty when there are none."""
    try:
        raw = os.read(fd, 65536)
    except BlockingIOError:
        return []
    events = []
    offset = 0
    while offset < len(raw):
        watch, mask, _cookie, length = INOTIFY_EVENT.unpack_from(raw, offset)
        offset += INOTIFY_EVENT.size
        events.append(Event(watch, mask, raw[offset : offset + length].rstrip(b"\0")))
        offset += length
    return events
