"""Who may write: one process per data root, one thread per object."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from proa.errors import Conflict
from proa.storage.paths import make_private


class RootLock:
    """The flock on a data root, held until close() or the end of the process."""

    def __init__(self, fd: int, root: Path) -> None:
        self._fd = fd
        self.root = root

    def close(self) -> None:
        """Let the next process have the root."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        """The descriptor that holds the lock; a process that inherits it holds the lock too."""
        return self._fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def lock_root(root: Path) -> RootLock:
    """Become the only writer of `root`, which is made when missing. Raises Conflict when another process is.

    The kernel drops the lock with the process, however it ends; the pid inside the file is for people.
    """
    make_private(root)
    path = root / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            raise Conflict(
                f"data root {root} is in use by another engine" + (f" (pid {holder})" if holder else ""),
                code="root-locked",
                subject=str(root),
                hint="talk to that engine, stop it, or choose another data root",
            ) from None
        # Over what is there, and cut afterwards: on a full disk there would be no block to write to again.
        os.ftruncate(fd, os.pwrite(fd, f"{os.getpid()}\n".encode(), 0))
    except BaseException:
        os.close(fd)
        raise
    return RootLock(fd, root)


class KeyedLocks:
    """A lock per key that exists only while somebody wants it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Keep other threads that hold the same key out; not reentrant."""
        with self._mutex:
            lock, users = self._locks.get(key) or (threading.Lock(), 0)
            self._locks[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._mutex:
                lock, users = self._locks[key]
                if users == 1:
                    del self._locks[key]
                else:
                    self._locks[key] = (lock, users - 1)
