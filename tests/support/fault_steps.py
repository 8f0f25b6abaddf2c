"""Strike at the n-th step that changes a disk: kill, stop, or let it fail.

A step is one call that makes, names, removes, cuts or flushes something: a crash can come between any two. Counted are
the calls of this process, of all its threads, in the order they come.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

STEPS = (
    "fchmod",
    "fsync",
    "ftruncate",
    "link",
    "mkdir",
    "pwrite",
    "rename",
    "replace",
    "rmdir",
    "symlink",
    "unlink",
)
# A full disk refuses what needs space; it does not refuse removals.
GROWING = frozenset({"link", "mkdir", "pwrite", "symlink", "fsync", "syncfs"})


class Steps:
    """Counts steps. mode: "" (only count), "kill", "stop", or an errno's name ("EIO") for a call that fails.

    sticky: every step from `at` on fails, as on a disk that is gone, and not just one.
    """

    def __init__(self, mode: str = "", at: int = 0, *, sticky: bool = False) -> None:
        self._mode, self._at, self._sticky = mode, at, sticky
        self._lock = threading.Lock()
        self.count = 0
        self.log: list[str] = []

    def install(self) -> None:
        """Put the counter before the calls, for the rest of this process's life."""
        for name in STEPS:
            setattr(os, name, self._counted(name, getattr(os, name)))
        from proa.linux import files

        for name in ("syncfs", "renameat2"):
            setattr(files, f"_{name}", self._counted(name, getattr(files, f"_{name}")))

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._step(name, args)
            return call(*args, **kwargs)

        return counted

    def _step(self, name: str, args: tuple[Any, ...]) -> None:
        with self._lock:
            self.count += 1
            self.log.append(name)
            mine = self.count == self._at or (self._sticky and self.count > self._at > 0)
            if mine and self._mode in ("kill", "stop"):
                # With the lock held: no other thread gets past its next step meanwhile.
                os.kill(os.getpid(), signal.SIGKILL if self._mode == "kill" else signal.SIGSTOP)
        if mine and self._mode.startswith("E"):
            number = getattr(errno, self._mode)
            if number != errno.ENOSPC or name in GROWING:
                raise OSError(number, os.strerror(number), *[a for a in args[:1] if isinstance(a, (str, bytes))])
