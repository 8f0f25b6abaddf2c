"""What one stack of layer directories shows differently from another, whatever layers the two have in common."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from proa.storage.layers.attributes import read_xattrs
from proa.storage.layers.names import split
from proa.storage.layers.trees import Trees

__all__ = ["ADDED", "DELETED", "MODIFIED", "differences"]

MODIFIED, ADDED, DELETED = 0, 1, 2

_PIECE = 1 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_Seen = tuple[bytes, int, os.stat_result]


def differences(before: Sequence[Path | str], after: Sequence[Path | str]) -> Iterator[tuple[int, bytes]]:
    """What changes from `before` to `after` (directories, uppermost first): (kind, path), in the order of a walk.

    A file is modified when its type, content, owner, mode, extended attributes or time differ; of directories the time
    does not count, and of one that is gone only its own path is told. Files of a layer that both have are not read.
    """
    with ExitStack() as stack:
        old, new = (stack.enter_context(Trees(paths)) if paths else None for paths in (before, after))
        left, right = (trees.walk() if trees is not None else iter(()) for trees in (old, new))
        one, other = next(left, None), next(right, None)
        gone = b""
        while one is not None or other is not None:
            if other is None or (one is not None and _key(one) < _key(other)):
                assert one is not None
                if not gone or not one[0].startswith(gone):
                    yield DELETED, one[0]
                    gone = one[0] + b"/"
                one = next(left, None)
            elif one is None or _key(other) < _key(one):
                yield ADDED, other[0]
                other = next(right, None)
            else:
                assert old is not None
                assert new is not None
                if not _same(old, one, new, other):
                    yield MODIFIED, one[0]
                one, other = next(left, None), next(right, None)


def _key(seen: _Seen) -> list[bytes]:
    return seen[0].split(b"/")


def _same(old: Trees, one: _Seen, new: Trees, other: _Seen) -> bool:
    path, a, b = one[0], one[2], other[2]
    if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino):
        return True
    if (a.st_mode, a.st_uid, a.st_gid) != (b.st_mode, b.st_uid, b.st_gid):
        return False
    kind = stat.S_IFMT(a.st_mode)
    if kind == stat.S_IFDIR:
        return read_xattrs(old.fd(one[1], path)) == read_xattrs(new.fd(other[1], path))
    if (a.st_rdev, a.st_size, a.st_mtime_ns) != (b.st_rdev, b.st_size, b.st_mtime_ns):
        return False
    parent, base = split(path)
    fds = old.fd(one[1], parent), new.fd(other[1], parent)
    if kind == stat.S_IFLNK:
        return os.readlink(base, dir_fd=fds[0]) == os.readlink(base, dir_fd=fds[1])
    return kind != stat.S_IFREG or _same_content(base, *fds)


def _same_content(base: bytes, one_dir: int, other_dir: int) -> bool:
    fds: list[int] = []
    try:
        fds += [os.open(base, _FILE, dir_fd=fd) for fd in (one_dir, other_dir)]
        if read_xattrs(fds[0]) != read_xattrs(fds[1]):
            return False
        while True:
            pieces = [os.read(fd, _PIECE) for fd in fds]
            if pieces[0] != pieces[1]:
                return False
            if not pieces[0]:
                return True
    finally:
        for fd in fds:
            os.close(fd)
