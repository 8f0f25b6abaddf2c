"""A layer's inventory: what its files were when they were unpacked, so that a changed bit is found years later.

A gzip stream of one record a file, in no order that matters, parents before what is in them:

    mode(octal) uid gid size mtime_ns sum(hex) path NUL          size: bytes; of a device its number, of others 0

`sum` is a CRC-32: of a regular file's content followed by its extended attributes, of a symbolic link's target, of a
directory's extended attributes. It is there against rot, not against people: who can write into the store can write
here too. The content's is taken while it is written, from memory the processor has at hand: some 3 ms for 121 MB, where
SHA-256 would take 90. The list takes 30 ms for 6,000 files, while the engine waits for the disk. In memory, where there
is nothing to wait for, unpacking that layer takes 0.52 s instead of 0.49 (best of 15).
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from proa.errors import Corrupt, NotFound
from proa.storage.layers import overlay
from proa.storage.layers.attributes import read_xattrs
from proa.storage.layers.names import display, split
from proa.storage.layers.opened import OpenDirectories

codec: Any
try:
    from isal import isal_zlib as codec
except ImportError:  # no wheel for this machine
    codec = zlib

__all__ = ["Difference", "Found", "compare", "crc32", "read_inventory", "sum_xattrs", "write_inventory"]

crc32 = codec.crc32

_LEVEL = 1
_GZIP = 31
_PIECE = 1 << 20
_LINES = 512
_LIMIT = 1 << 30
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: what was a file may be a fifo now.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Found(NamedTuple):
    """One file as the inventory has it, or as it is on disk."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    sum: int


class Difference(NamedTuple):
    """One file that is not as it was: `what` is content, attributes, missing or unexpected."""

    path: str
    what: str


def write_inventory(out_fd: int, root_fd: int, sums: Mapping[int, int]) -> None:
    """List the tree at `root_fd` into the file `out_fd`; `sums` has what is known already, by inode number."""
    encoder = codec.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    lines: list[bytes] = []
    for path, found in _walk(root_fd, sums):
        lines.append(b"%o %d %d %d %d %x %s\0" % (*found, path))
        if len(lines) == _LINES:
            _write(out_fd, encoder.compress(b"".join(lines)))
            lines.clear()
    _write(out_fd, encoder.compress(b"".join(lines)) + encoder.flush())


def read_inventory(path: Path) -> dict[bytes, Found]:
    """The records by path, b"" is the root. Raises NotFound, Corrupt."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no inventory {path}", code="inventory-missing", subject=str(path)) from None
    decoder = zlib.decompressobj(_GZIP)
    try:
        text = decoder.decompress(raw, _LIMIT)
        if not decoder.eof or decoder.unused_data or (text and not text.endswith(b"\0")):
            raise ValueError("it is cut off")
        out = {}
        for line in text.split(b"\0")[:-1]:
            mode, uid, gid, size, mtime_ns, total, name = line.split(b" ", 6)
            out[name] = Found(int(mode, 8), int(uid), int(gid), int(size), int(mtime_ns), int(total, 16))
    except (zlib.error, ValueError) as error:
        raise Corrupt(
            f"inventory {path} cannot be read: {error}", code="inventory-corrupt", subject=str(path)
        ) from error
    return out


def compare(tree: Path, expected: Mapping[bytes, Found]) -> Iterator[Difference]:
    """How the tree at `tree` differs from an inventory; reads every byte of it. Raises OSError."""
    left = dict(expected)
    root_fd = os.open(tree, _DIRECTORY)
    try:
        for path, found in _walk(root_fd, {}):
            before = left.pop(path, None)
            if before is None:
                yield Difference(display(path), "unexpected")
            elif before.sum != found.sum or before.size != found.size:
                yield Difference(display(path), "content")
            elif before != found:
                yield Difference(display(path), "attributes")
    finally:
        os.close(root_fd)
    for path in sorted(left):
        yield Difference(display(path), "missing")


def sum_xattrs(fd: int, total: int = 0) -> int:
    """`total` continued over the extended attributes that a layer holds, overlay's opaque mark included."""
    for name, value in sorted((read_xattrs(fd) or {}).items()):
        total = crc32(name + b"\0" + value + b"\0", total)
    return total


def _walk(root_fd: int, sums: Mapping[int, int]) -> Iterator[tuple[bytes, Found]]:
    directories = OpenDirectories(root_fd)
    try:
        pending = [b""]
        while pending:
            path = pending.pop()
            try:
                fd = directories.fd(path)
            except PermissionError:  # an ordinary user's own, without the rights to look into it
                parent, base = split(path)
                status = os.stat(base, dir_fd=directories.fd(parent), follow_symlinks=False)
                yield path, Found(status.st_mode, status.st_uid, status.st_gid, 0, status.st_mtime_ns, 0)
                continue
            status = os.fstat(fd)
            total = sum_xattrs(fd, 1 if _opaque(fd) else 0)
            yield path, Found(status.st_mode, status.st_uid, status.st_gid, 0, status.st_mtime_ns, total)
            with os.scandir(fd) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    below = path + b"/" + name if path else name
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(below)
                        continue
                    yield below, _file(fd, name, entry.stat(follow_symlinks=False), sums)
    finally:
        directories.close()


def _opaque(fd: int) -> bool:
    return overlay.is_opaque(fd, overlay.TRUSTED) or overlay.is_opaque(fd, overlay.USER)


def _file(dir_fd: int, name: bytes, status: os.stat_result, sums: Mapping[int, int]) -> Found:
    total = size = 0
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        size = status.st_size
        known = sums.get(status.st_ino)
        total = _content(dir_fd, name) if known is None else known
    elif kind == stat.S_IFLNK:
        total = crc32(os.readlink(name, dir_fd=dir_fd))
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        size = status.st_rdev
    return Found(status.st_mode, status.st_uid, status.st_gid, size, status.st_mtime_ns, total)


def _content(dir_fd: int, name: bytes) -> int:
    fd = os.open(name, _FILE, dir_fd=dir_fd)
    try:
        total = 0
        while piece := os.read(fd, _PIECE):
            total = crc32(piece, total)
        return sum_xattrs(fd, total)
    finally:
        os.close(fd)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
