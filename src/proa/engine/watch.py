"""Watch monitors: one thread that hears from every running container's monitor, and from lent launchers."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable
from typing import Any, Protocol

log = logging.getLogger(__name__)

# Called with an event, or with None when there can be no more.
Listener = Callable[[dict[str, Any] | None], None]


class Watched(Protocol):
    """The connection of a monitor (`MonitorConnection`) or of a launcher (`BorrowedLauncher`)."""

    @property
    def ended(self) -> bool:
        """True once no more events can come."""

    def fileno(self) -> int:
        """Readable when an event came or the other end is gone."""

    def pending_events(self) -> list[dict[str, Any]]:
        """Events that are already here."""

    def close(self) -> None:
        """Stop listening."""


class Watcher:
    """Dispatch events of such connections to listeners, on one thread of its own."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._lock = threading.Lock()
        self._watched: dict[int, tuple[Watched, Listener]] = {}
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake_r, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def add(self, connection: Watched, listener: Listener) -> None:
        """Watch a connection until it has ended; then it is closed here, too."""
        with self._lock:
            self._watched[connection.fileno()] = (connection, listener)
        self._poll.register(connection.fileno(), select.EPOLLIN | select.EPOLLRDHUP)

    def close(self) -> None:
        """Stop watching everything; monitors go on."""
        os.write(self._wake_w, b"x")
        self._thread.join()
        for connection, _ in self._watched.values():
            connection.close()
        self._poll.close()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def _run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._wake_r:
                    return
                self._dispatch(fd)

    def _dispatch(self, fd: int) -> None:
        with self._lock:
            connection, listener = self._watched[fd]
        try:
            events, open_ = connection.pending_events(), not connection.ended
        except Exception:
            log.exception("reading a monitor's events failed")
            events, open_ = [], False
        if not open_:
            # Unregister first: a listener may start the container again, which reuses descriptor numbers.
            with self._lock:
                del self._watched[fd]
            self._poll.unregister(fd)
            connection.close()
        for event in [*events, *([] if open_ else [None])]:
            try:
                listener(event)
            except Exception:
                log.exception("handling a monitor's event failed: %s", event)
