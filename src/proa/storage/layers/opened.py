"""A bounded cache of open directories below a root, by their path."""

from __future__ import annotations

import os

from proa.storage.layers.names import split

__all__ = ["OpenDirectories", "open_directory"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_directory(name: bytes, dir_fd: int) -> int:
    """Open one real directory. Raises NotADirectoryError for a symbolic link too."""
    return os.open(name, _DIRECTORY, dir_fd=dir_fd)


class OpenDirectories:
    """Directories below `root_fd`, opened one name at a time and never through a link.

    Paths are canonical; b"" is the root, which stays the caller's. An fd is good until the next call.
    """

    def __init__(self, root_fd: int, capacity: int = 192) -> None:
        self._root_fd = root_fd
        self._capacity = capacity
        self._fds: dict[bytes, int] = {}  # oldest first

    def __contains__(self, path: bytes) -> bool:
        return path in self._fds

    def get(self, path: bytes) -> int | None:
        """The fd of `path` if it is open."""
        return self._fds.get(path) if path else self._root_fd

    def fd(self, path: bytes) -> int:
        """Open `path`. Raises FileNotFoundError, NotADirectoryError (also for a link on the way)."""
        fd = self.get(path)
        if fd is not None:
            return fd
        missing: list[bytes] = []
        while fd is None:
            missing.append(path)
            path = split(path)[0]
            fd = self.get(path)
        for path in reversed(missing):
            fd = self.keep(path, open_directory(split(path)[1], fd))
        return fd

    def keep(self, path: bytes, fd: int) -> int:
        """Add an open directory, which is the cache's to close from now on."""
        if len(self._fds) >= self._capacity:
            os.close(self._fds.pop(next(iter(self._fds))))
        self._fds[path] = fd
        return fd

    def forget(self, path: bytes) -> None:
        """Close `path` and all below it."""
        below = path + b"/"
        for known in [p for p in self._fds if p == path or p.startswith(below)]:
            os.close(self._fds.pop(known))

    def close(self) -> None:
        """Close all."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
