"""Hard links to files of the same layer, and to files of layers below, which are copied up first."""

from __future__ import annotations

import os
import stat
from typing import Self

from proa.errors import Invalid
from proa.storage.layers.attributes import Owner, read_attributes, write_attributes
from proa.storage.layers.directories import Directories
from proa.storage.layers.headers import Entry
from proa.storage.layers.merged import Found
from proa.storage.layers.names import canonical, display, split

__all__ = ["LinkTarget", "find_target"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def find_target(entry: Entry, directories: Directories) -> LinkTarget:
    """The file that a hard link entry names; an absolute name starts at the layer's root.

    Raises Invalid when the name leaves the root, or there is no such file, or it is a directory.
    """
    found = directories.merged.find(canonical(entry.linkname))
    if found is None or stat.S_ISDIR(found.status.st_mode):
        if found is not None:
            os.close(found.dir_fd)
        raise Invalid(
            f"archive entry {display(entry.name)!r} is a hard link to {display(entry.linkname)!r}, which is "
            f"{'not there' if found is None else 'a directory'}",
            code="layer-link",
            subject=display(entry.name),
        )
    return LinkTarget(found)


class LinkTarget:
    """A file to link to; a context manager. index: its layer, 0 for the one being written. path: without links."""

    def __init__(self, found: Found) -> None:
        self._dir_fd = found.dir_fd
        self._name = found.name
        self._status = found.status
        self.index = found.layer
        self.path = found.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._dir_fd)

    def link(self, name: bytes, dir_fd: int) -> None:
        """Make another name of the file. Raises FileExistsError."""
        os.link(self._name, name, src_dir_fd=self._dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)

    def is_same(self, status: os.stat_result) -> bool:
        """Whether `status` is of this very file."""
        return (status.st_dev, status.st_ino) == (self._status.st_dev, self._status.st_ino)

    def bring_up(self, directories: Directories, owner: Owner) -> None:
        """Copy the file from its layer to the same path in the one being written."""
        dir_fd, _ = directories.open(split(self.path)[0])
        status = self._status
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            self._copy(dir_fd, owner)
        else:
            if kind == stat.S_IFLNK:
                os.symlink(os.readlink(self._name, dir_fd=self._dir_fd), self._name, dir_fd=dir_fd)
            else:
                os.mknod(self._name, status.st_mode, status.st_rdev, dir_fd=dir_fd)
            if owner.differs(status.st_uid, status.st_gid):
                os.chown(self._name, status.st_uid, status.st_gid, dir_fd=dir_fd, follow_symlinks=False)
            time_ns = status.st_mtime_ns
            os.utime(self._name, ns=(time_ns, time_ns), dir_fd=dir_fd, follow_symlinks=False)
        os.close(self._dir_fd)
        self._dir_fd = os.dup(dir_fd)

    def _copy(self, dir_fd: int, owner: Owner) -> None:
        source = os.open(self._name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._dir_fd)
        try:
            fd = os.open(self._name, _CREATE, 0o600, dir_fd=dir_fd)
            try:
                while os.sendfile(fd, source, None, 1 << 30):
                    pass
                write_attributes(fd, read_attributes(source), owner)
            finally:
                os.close(fd)
        finally:
            os.close(source)
