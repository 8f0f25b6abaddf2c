"""A stack of layer directories, read as overlay would show them: listings, comparisons, and entries for an archive."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from proa.errors import Unsupported
from proa.storage.layers import overlay
from proa.storage.layers.archive import TarWriter
from proa.storage.layers.attributes import read_xattrs, read_xattrs_at
from proa.storage.layers.entries import entry_of, kind_of
from proa.storage.layers.headers import Entry
from proa.storage.layers.merged import MAX_LINKS, Layer, MergedView, redirect
from proa.storage.layers.names import display, split
from proa.storage.layers.opened import OpenDirectories
from proa.storage.layers.steady import PIECE, changed, content

__all__ = ["Trees"]

_SECOND = 1_000_000_000
_OPEN_DIRECTORIES = 384
_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: what was a file a moment ago may be a fifo now.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Trees:
    """The trees at `paths`, uppermost first, known by their index; a context manager. Not thread-safe.

    Times in entries are seconds unless `nanoseconds`, and never later than `epoch`. Names in them are relative to
    `start`, where walking begins: the root unless `descend` went elsewhere.
    """

    def __init__(self, paths: Sequence[Path | str], epoch: int | None = None, nanoseconds: bool = False) -> None:
        self.start = b""
        self._latest_ns = None if epoch is None else epoch * _SECOND
        self._resolution_ns = 1 if nanoseconds else _SECOND
        self._links: dict[tuple[int, int], bytes] = {}
        self._roots: list[int] = []
        self._opened: list[OpenDirectories] = []
        self.prefix = overlay.attribute_prefix()
        self.count = len(paths)
        try:
            for path in paths:
                self._roots.append(os.open(path, _ROOT))
                self._opened.append(OpenDirectories(self._roots[-1], max(4, _OPEN_DIRECTORIES // self.count)))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every directory."""
        for opened in self._opened:
            opened.close()
        for fd in self._roots:
            os.close(fd)
        self._roots.clear()

    # ---- looking ---------------------------------------------------------------------------------------------------

    def fd(self, index: int, path: bytes) -> int:
        """An open directory, good until the next call for the same tree."""
        return self._opened[index].fd(path)

    def listing(self, index: int, path: bytes) -> list[bytes]:
        """The names in a directory of one tree."""
        return [os.fsencode(name) for name in os.listdir(self.fd(index, path))]

    def status(self, index: int, path: bytes) -> os.stat_result | None:
        """lstat of a path whose parent is a directory of that tree; None when there is nothing."""
        parent, base = split(path)
        try:
            return os.stat(base, dir_fd=self.fd(index, parent), follow_symlinks=False)
        except FileNotFoundError:
            return None

    def shown(self, path: bytes, levels: Sequence[int]) -> tuple[int, os.stat_result] | None:
        """What the trees `levels`, which all have its parent, show at `path`: (index, status)."""
        for index in levels:
            status = self.status(index, path)
            if status is not None:
                return None if overlay.is_whiteout(status) else (index, status)
        return None

    def merging(self, path: bytes, levels: Sequence[int]) -> list[int]:
        """Those of `levels`, which all have its parent, whose directories at `path` show together."""
        merging: list[int] = []
        for index in levels:
            status = self.status(index, path)
            if status is None:
                continue
            if not stat.S_ISDIR(status.st_mode):
                break
            merging.append(index)
            if overlay.is_opaque(self.fd(index, path), self.prefix):
                break
        return merging

    def descend(self, path: bytes) -> tuple[int, os.stat_result] | None:
        """Make the directory at `path` the start; links are followed as in a chroot. None when there is none."""
        view = MergedView([Layer(fd, lambda fd, _path: overlay.is_opaque(fd, self.prefix)) for fd in self._roots])
        parts = redirect([], b"/" + path, [])
        for _ in range(MAX_LINKS):
            if not parts:
                self.start = b""
                return 0, os.fstat(self._roots[0])
            found = view.find(b"/".join(parts))
            if found is None:
                return None
            try:
                if stat.S_ISLNK(found.status.st_mode):
                    target = os.readlink(found.name, dir_fd=found.dir_fd)
                    parts = redirect(found.path.split(b"/")[:-1], target, [])
                    continue
            finally:
                os.close(found.dir_fd)
            self.start = found.path
            return (found.layer, found.status) if stat.S_ISDIR(found.status.st_mode) else None
        return None

    def walk(self, exclude: frozenset[bytes] = frozenset()) -> Iterator[tuple[bytes, int, os.stat_result]]:
        """Everything shown below `start` but itself, sorted, directories before what is in them: (path, tree, status).

        Paths in `exclude` are passed over with all below them.
        """
        levels = list(range(self.count))
        top = b""
        for part in self.start.split(b"/") if self.start else ():
            top = top + b"/" + part if top else part
            levels = self.merging(top, levels)
        stack = [(top, levels, self._names(top, levels))]
        while stack:
            parent, levels, names = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                continue
            path = parent + b"/" + name if parent else name
            found = None if path in exclude else self.shown(path, levels)
            if found is None:
                continue
            yield path, *found
            if stat.S_ISDIR(found[1].st_mode):
                below = self.merging(path, levels)
                stack.append((path, below, self._names(path, below)))

    def _names(self, path: bytes, levels: Sequence[int]) -> Iterator[bytes]:
        return iter(sorted({name for index in levels for name in self.listing(index, path)}))

    # ---- comparing tree 0 with what a lower tree shows ---------------------------------------------------------------

    def same_directory(self, path: bytes, status: os.stat_result, index: int, lower: os.stat_result) -> bool:
        """Whether a directory has the attributes of the one below it, times aside."""
        return _same_attributes(status, lower) and read_xattrs(self.fd(0, path)) == read_xattrs(self.fd(index, path))

    def same_file(self, path: bytes, status: os.stat_result, index: int, lower: os.stat_result) -> bool:
        """Whether a file that is no directory is just a copy of the one below it."""
        if not _same_attributes(status, lower) or status.st_mtime_ns != lower.st_mtime_ns or status.st_nlink > 1:
            return False
        parent, base = split(path)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            here = os.readlink(base, dir_fd=self.fd(0, parent))
            return here == os.readlink(base, dir_fd=self.fd(index, parent)) and self._same_xattrs(parent, base, index)
        if kind != stat.S_IFREG:
            return status.st_rdev == lower.st_rdev and self._same_xattrs(parent, base, index)
        if status.st_size != lower.st_size:
            return False
        fds: list[int] = []
        try:
            fds.extend(os.open(base, _FILE, dir_fd=self.fd(i, parent)) for i in (0, index))
            return read_xattrs(fds[0]) == read_xattrs(fds[1]) and _same_content(*fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _same_xattrs(self, parent: bytes, base: bytes, index: int) -> bool:
        return read_xattrs_at(self.fd(0, parent), base) == read_xattrs_at(self.fd(index, parent), base)

    # ---- writing ---------------------------------------------------------------------------------------------------

    def time(self, status: os.stat_result) -> int:
        """The modification time that goes into an archive, in nanoseconds."""
        time_ns = status.st_mtime_ns // self._resolution_ns * self._resolution_ns
        return time_ns if self._latest_ns is None else min(time_ns, self._latest_ns)

    def add(self, writer: TarWriter, path: bytes, index: int, status: os.stat_result) -> None:
        """Write one path of a tree; sockets are passed over. Raises Conflict, Unsupported, OSError."""
        kind = kind_of(status)
        if kind is None:
            return
        parent, base = split(path)
        entry = self._entry(path, kind, status)
        if kind != "5" and status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                entry.kind, entry.linkname = "1", self._name(first)
                writer.add(entry)
                return
        if kind == "0":
            self._add_file(writer, path, os.open(base, _FILE, dir_fd=self.fd(index, parent)))
            return
        if kind == "2":
            entry.linkname = os.readlink(base, dir_fd=self.fd(index, parent))
        elif kind == "5":
            entry.name += b"/"
            entry.xattrs = self._xattrs(self.fd(index, path), path)
        elif kind in "34":
            entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        if kind != "5":
            entry.xattrs = read_xattrs_at(self.fd(index, parent), base)
        writer.add(entry)

    def _name(self, path: bytes) -> bytes:
        """The name of a path in the archive."""
        return (path[len(self.start) + 1 :] if self.start else path) or b"."

    def _entry(self, path: bytes, kind: str, status: os.stat_result) -> Entry:
        return entry_of(self._name(path), kind, status, self.time(status))

    def _add_file(self, writer: TarWriter, path: bytes, fd: int) -> None:
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise changed(path)
            entry = self._entry(path, "0", status)
            entry.size = entry.stored = status.st_size
            entry.xattrs = self._xattrs(fd, path)
            writer.add(entry, content(fd, status.st_size, path))
        finally:
            os.close(fd)

    def _xattrs(self, fd: int, path: bytes) -> dict[bytes, bytes] | None:
        names = os.listxattr(fd)
        for pointer in ("redirect", "metacopy"):
            if names and self.prefix + pointer in names:
                raise Unsupported(
                    f"{display(path)!r} is stored with overlay's {pointer}: its content is elsewhere",
                    code="overlay-pointer",
                    subject=display(path),
                    hint="mount with redirect_dir=nofollow,metacopy=off",
                )
        return read_xattrs(fd) if names else None


def _same_attributes(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)


def _same_content(one: int, other: int) -> bool:
    while True:
        piece = os.read(one, PIECE)
        if piece != os.read(other, PIECE):
            return False
        if not piece:
            return True
