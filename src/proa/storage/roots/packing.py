"""Pack one file or tree of this process's root as a tar archive.

Directories are opened one name at a time and never through a link, files only when they are regular: neither a FIFO
nor a device is ever opened. File systems of the kernel's own (procfs, sysfs, cgroups, …) are packed as empty
directories when a tree reaches into them: reading all of them blocks, and never ends.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from proa.errors import Conflict, Exhausted
from proa.linux.mount import (
    CGROUP2_SUPER_MAGIC,
    CGROUP_SUPER_MAGIC,
    DEVPTS_SUPER_MAGIC,
    PROC_SUPER_MAGIC,
    SYSFS_MAGIC,
    fstatfs_magic,
)
from proa.storage.layers.archive import Sink, TarWriter
from proa.storage.layers.attributes import read_xattrs
from proa.storage.layers.entries import entry_of, kind_of
from proa.storage.layers.headers import Entry
from proa.storage.layers.names import display
from proa.storage.layers.steady import PIECE, changed, content

__all__ = ["pack"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# Files of the kernel's file systems have a size of 0 or of one page, whatever they hold: so small ones are read first.
_MAY_LIE_BYTES = 4096
_SMALL_FILE_LIMIT = 4 << 20
_MAX_DEPTH = 900
_SECOND = 1_000_000_000
_MQUEUE_MAGIC, _DEBUGFS_MAGIC, _TRACEFS_MAGIC, _SECURITYFS_MAGIC, _BPF_MAGIC = (
    *(0x19800202, 0x64626720, 0x74726163, 0x73636673, 0xCAFE4A11),
)
_OF_THE_KERNEL = frozenset(
    (
        *(PROC_SUPER_MAGIC, SYSFS_MAGIC, DEVPTS_SUPER_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC),
        *(_MQUEUE_MAGIC, _DEBUGFS_MAGIC, _TRACEFS_MAGIC, _SECURITYFS_MAGIC, _BPF_MAGIC),
    )
)


def pack(path: str, name: str, sink: Sink) -> int:
    """Write what is at the absolute `path`, named `name` in the archive, with all below it; returns how many members.

    Sockets are passed over. Raises OSError, Conflict when a file shrinks meanwhile, Exhausted for a tree too deep.
    """
    writer = TarWriter(sink, digest=False)
    parent, base = os.path.split(path)
    if base in ("", "."):
        parent, base = path, "."
    top = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _Packing(writer).run(top, os.fsencode(base), os.fsencode(name))
    finally:
        os.close(top)
    writer.finish()
    return writer.entries


class _Packing:
    def __init__(self, writer: TarWriter) -> None:
        self._writer = writer
        self._links: dict[tuple[int, int], bytes] = {}

    def run(self, dir_fd: int, base: bytes, name: bytes) -> None:
        stack: list[tuple[int, bytes, Iterator[bytes]]] = []
        try:
            self._enter(stack, dir_fd, base, name)
            while stack:
                fd, prefix, names = stack[-1]
                child = next(names, None)
                if child is None:
                    os.close(fd)
                    stack.pop()
                elif prefix == b"/":
                    self._enter(stack, fd, child, b"/" + child)
                else:
                    self._enter(stack, fd, child, prefix + b"/" + child)
        finally:
            for fd, _, _ in stack:
                os.close(fd)

    def _enter(self, stack: list[tuple[int, bytes, Iterator[bytes]]], dir_fd: int, base: bytes, name: bytes) -> None:
        """Write one name; a directory is put on the stack for what is in it."""
        try:
            status = os.stat(base, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            if stack:
                return  # it went while the tree was read
            raise
        kind = kind_of(status)
        if kind is None:
            return
        entry = _entry(name, kind, status)
        if kind == "5":
            if len(stack) >= _MAX_DEPTH:
                raise Exhausted(f"{display(name)!r} is more than {_MAX_DEPTH} directories deep", code="tree-too-deep")
            fd = os.open(base, _DIRECTORY, dir_fd=dir_fd)
            entry.name = name if name == b"/" else name + b"/"
            entry.xattrs = read_xattrs(fd)
            self._writer.add(entry)
            below = stack and fstatfs_magic(fd) in _OF_THE_KERNEL
            names = [] if below else sorted(os.fsencode(n) for n in os.listdir(fd))
            stack.append((fd, name, iter(names)))
            return
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                entry.kind, entry.linkname = "1", first
                self._writer.add(entry)
                return
        if kind == "0":
            self._add_file(dir_fd, base, name)
            return
        if kind == "2":
            entry.linkname = os.readlink(base, dir_fd=dir_fd)
        elif kind in "34":
            entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._writer.add(entry)

    def _add_file(self, dir_fd: int, base: bytes, name: bytes) -> None:
        fd = os.open(base, _FILE, dir_fd=dir_fd)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise changed(name)
            entry = _entry(name, "0", status)
            entry.xattrs = read_xattrs(fd)
            size = status.st_size
            if size <= _MAY_LIE_BYTES:
                data = _read_small(fd, name)
                entry.size = entry.stored = len(data)
                self._writer.add(entry, [data])
            else:
                entry.size = entry.stored = size
                self._writer.add(entry, content(fd, size, name))
        finally:
            os.close(fd)


def _entry(name: bytes, kind: str, status: os.stat_result) -> Entry:
    return entry_of(name, kind, status, status.st_mtime_ns // _SECOND * _SECOND)


def _read_small(fd: int, name: bytes) -> bytes:
    data = bytearray()
    while piece := os.read(fd, PIECE):
        data += piece
        if len(data) > _SMALL_FILE_LIMIT:
            raise Conflict(f"{display(name)!r} grows while it is read", code="file-changed", subject=display(name))
    return bytes(data)
