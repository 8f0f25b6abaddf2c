"""Removal in two steps: a rename that the caller waits for, and the deletion of the files in the background."""

from __future__ import annotations

import os
import queue
import threading
import time
from pathlib import Path

from proa.storage.deletion import delete_tree

# Who asked for a removal gets his answer first: deleting competes with that for the interpreter, which is 1 ms of it.
QUIET_S = 0.02


class Trash:
    """The directory `trash`. Thread-safe. What a crash leaves in it is deleted by the next process that opens it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._idle = threading.Condition()
        self._waiting = 0
        self._thread: threading.Thread | None = None
        left = os.listdir(directory)
        self._next = max((int(n) for n in left if n.isascii() and n.isdecimal()), default=0) + 1
        self.blocked: dict[str, str] = {}
        self._stranded: list[Path | str] = []
        if left:
            self.retry()

    def discard(self, path: Path | str, *, nobodys: bool = False) -> None:
        """Take `path`, on the same file system, out of the way; a path that is not there is fine. Raises OSError.

        nobodys: nothing refers to it any more, so a failure is no concern of the caller's: `retry` tries again.
        """
        with self._lock:
            name = str(self._next)
            self._next += 1
        try:
            os.rename(path, self._directory / name)
        except FileNotFoundError:
            return
        except OSError:
            if not nobodys:
                raise
            self._stranded.append(path)
            return
        self._enqueue(name)

    def retry(self) -> None:
        """Queue what could not be deleted, or was left by an earlier process."""
        queued = os.listdir(self._directory)
        self.blocked.clear()
        for name in queued:
            self._enqueue(name)
        stranded, self._stranded = self._stranded, []
        for path in stranded:
            self.discard(path, nobodys=True)

    def drain(self, timeout_s: float = 60.0) -> bool:
        """Wait until everything is deleted that can be; False when that takes longer."""
        deadline = time.monotonic() + timeout_s
        with self._idle:
            while self._waiting:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._idle.wait(left)
        return True

    def close(self) -> None:
        """Stop after the tree in hand, or in 2 s; the rest is deleted by the next process."""
        with self._lock:
            thread = self._thread
            self._thread = None
        if thread is not None:
            self._stopping = True
            self._queue.put(None)
            thread.join(2.0)  # a huge tree must not hold up the end of the process

    def _enqueue(self, name: str) -> None:
        with self._idle:
            self._waiting += 1
        self._queue.put(name)
        with self._lock:
            if self._thread is None:
                self._stopping = False
                self._thread = threading.Thread(target=self._run, name="trash", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        directory_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while (name := self._next_name()) is not None:
                try:
                    if not self._stopping:
                        delete_tree(directory_fd, name)
                except OSError as e:
                    # Kept and reported: a mount inside, an immutable file. It is tried again on the next start.
                    self.blocked[name] = str(e)
                finally:
                    with self._idle:
                        self._waiting -= 1
                        if not self._waiting:
                            self._idle.notify_all()
        finally:
            os.close(directory_fd)

    def _next_name(self) -> str | None:
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            name = self._queue.get()
            time.sleep(QUIET_S)
            return name

    _stopping = False
