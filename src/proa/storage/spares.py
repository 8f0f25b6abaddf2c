"""Snapshot directories made ahead of their use.

Making a directory takes 10 us on an idle ext4 and up to 1 ms after many deletions (without a journal it passes over
inodes that were freed lately), and a snapshot needs three while somebody waits for a container to start.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

# Making begins this long after the last use: by then the container that took one has started.
_PAUSE_S = 0.05


class Spares:
    """Up to `count` results of `make` in store. Thread-safe; its thread starts with the first use."""

    def __init__(self, make: Callable[[], str], drop: Callable[[str], None], count: int = 6) -> None:
        self._make = make
        self._drop = drop
        self._count = count
        self._stock: deque[str] = deque()
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def take(self) -> str:
        """One of them, made now when there is none. Raises what `make` raises."""
        try:
            return self._stock.popleft()
        except IndexError:
            return self._make()
        finally:
            self._wanted.set()
            if self._thread is None:
                self._start()

    def close(self) -> None:
        """Stop, and drop what is in store."""
        self._stopped.set()
        self._wanted.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        while self._stock:
            self._drop(self._stock.popleft())

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name="spares", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wanted.wait()
            self._wanted.clear()
            if self._stopped.wait(_PAUSE_S) or self._wanted.is_set():
                continue  # taken again meanwhile: wait anew
            while len(self._stock) < self._count and not self._stopped.is_set():
                try:
                    self._stock.append(self._make())
                except OSError:
                    break  # whoever takes next makes one, and is told why it fails
