"""Doors that hardly anybody comes to: the first client makes it known, and the relay is started only then.

Every port published at `::` can be asked for at ::1; a process for that alone would be there in vain nearly always.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable

__all__ = ["Doorbell"]


class Doorbell:
    """Calls `rung`, in a thread of its own, when somebody is at one of the doors; then it has none any more."""

    def __init__(self, rung: Callable[[], None]) -> None:
        self._rung = rung
        self._lock = threading.Lock()
        self._waiting: select.epoll | None = None
        self._stop = -1
        self._doors: set[int] = set()

    def hang(self, door: socket.socket) -> None:
        """Listen at this door, too."""
        with self._lock:
            if self._waiting is None:
                self._waiting = select.epoll()
                self._stop = os.eventfd(0, os.EFD_CLOEXEC)
                self._waiting.register(self._stop, select.EPOLLIN)
                arguments = (self._waiting, self._stop)
                threading.Thread(target=self._wait, args=arguments, name="proa-doorbell", daemon=True).start()
            if door.fileno() not in self._doors:
                self._doors.add(door.fileno())
                self._waiting.register(door, select.EPOLLIN)

    def take(self, door: socket.socket) -> None:
        """No longer at this one; before it is closed. One that has none is fine."""
        with self._lock:
            if door.fileno() in self._doors and self._waiting is not None:
                self._doors.remove(door.fileno())
                self._waiting.unregister(door)

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            if self._waiting is not None:
                os.eventfd_write(self._stop, 1)
                self._waiting = None
                self._doors = set()

    def _wait(self, waiting: select.epoll, stop: int) -> None:
        try:
            while True:
                ready = [fd for fd, _ in waiting.poll()]
                if stop in ready:
                    return
                with self._lock:
                    doors, self._doors = self._doors, set()
                    for fd in doors:
                        waiting.unregister(fd)
                self._rung()
        finally:
            waiting.close()
            os.close(stop)
