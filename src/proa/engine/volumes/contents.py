"""What is in volumes: filled from an image, written as an archive, replaced from one, copied.

Archives go through the same confined worker that unpacks layers: nothing in one can reach beyond its volume. New
contents are made beside the old ones, made durable, and then put in their place at once, so that a crash leaves one or
the other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from proa.engine.piping import piped
from proa.errors import Conflict
from proa.linux.files import RENAME_EXCHANGE, renameat2, syncfs
from proa.linux.mount import AT_FDCWD
from proa.storage import Storage
from proa.storage.deletion import delete_tree
from proa.storage.layers import tar_directory
from proa.storage.layers.trees import Trees

__all__ = ["Contents", "is_empty"]

FILLING = "filling"


def is_empty(data: Path) -> bool:
    """Whether nothing is in a volume."""
    with os.scandir(data) as entries:
        return next(entries, None) is None


class Contents:
    """Fills and empties volumes' directories. The caller sees to it that nobody else changes them meanwhile."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._trash = storage.trash

    def write(self, data: Path, sink: BinaryIO) -> None:
        """Write a volume as a tar archive. Raises Conflict when a file changes while it is read, Cancelled."""
        tar_directory([data], b"", sink)

    def copy(self, layers: Sequence[Path], path: str, data: Path) -> bool:
        """Fill an empty volume with what an image (its layers, uppermost first) has in a directory; False for none.

        Owner, mode and times of the directory itself are taken over too, as Docker does.
        """
        with Trees(layers) as trees:
            if trees.descend(os.fsencode(path)) is None:
                return False
        with piped(lambda sink: tar_directory(layers, os.fsencode(path), sink)) as source:
            self.replace(data, source, compression="none")
        return True

    def clone(self, origin: Path, data: Path) -> None:
        """Fill an empty volume with what is in another. Raises Conflict when a file changes while it is read."""
        with piped(lambda sink: self.write(origin, sink)) as source:
            self.replace(data, source, compression="none")

    def replace(self, data: Path, source: BinaryIO, *, compression: str = "auto") -> None:
        """Put an archive's contents in the place of what is in a volume; an archive that is refused changes nothing.

        Raises Invalid, Corrupt, Unsupported, Exhausted for the archive, Conflict when the volume is on a file system of
        its own and not empty.
        """
        own = os.stat(data).st_dev != os.stat(data.parent).st_dev
        if own and not is_empty(data):
            raise Conflict(
                "a volume on a file system of its own is filled only when it is empty", code="volume-not-empty"
            )
        filling = data.parent / FILLING
        self._trash.discard(filling)
        target = data if own else filling
        if not own:
            status = os.stat(data)
            filling.mkdir(mode=0o700)
            os.chown(filling, status.st_uid, status.st_gid)
            filling.chmod(status.st_mode & 0o7777)
        try:
            self._storage.unpacker.unpack(source, compression, target, marks=False)
            _make_durable(target)
        except BaseException:
            if own:
                _empty(data)
            self._trash.discard(filling)
            raise
        if not own:
            renameat2(AT_FDCWD, filling, AT_FDCWD, data, RENAME_EXCHANGE)
            self._trash.discard(filling)
            _make_durable(data.parent)

    def tidy(self, data: Path) -> None:
        """Remove what an interrupted `replace` left."""
        self._trash.discard(data.parent / FILLING)


def _make_durable(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def _empty(data: Path) -> None:
    fd = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(fd):
            delete_tree(fd, name)
    finally:
        os.close(fd)
