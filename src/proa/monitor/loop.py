"""The monitor's event loop: one thread, one epoll, a few timers."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

__all__ = ["ERROR", "HANGUP", "READ", "WRITE", "Loop"]

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP
ERROR = select.EPOLLERR
IDLE_S = 1.0


class Loop:
    """Calls back when descriptors are ready or deadlines pass.

    Descriptors are watched level-triggered. `close` defers to the end of the round, so that a number is never
    reused while events for its former owner are still queued.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll(select.EPOLL_CLOEXEC)
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._masks: dict[int, int] = {}
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._closing: list[int] = []
        self._busy = False
        self._on_idle: Callable[[], None] | None = None

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call back once after each busy period, when nothing happened for IDLE_S."""
        self._on_idle = callback

    def busy(self) -> None:
        """Note that memory was used which could be released when idle."""
        self._busy = True

    def watch(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` whenever `fd` is ready; HANGUP and ERROR are always reported."""
        if fd in self._callbacks:
            if self._masks[fd] != mask:
                self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._callbacks[fd] = callback
        self._masks[fd] = mask

    def forget(self, fd: int) -> None:
        """Stop watching; harmless when not watched. Needed before close: others may hold the same description."""
        if self._callbacks.pop(fd, None) is not None:
            del self._masks[fd]
            self._epoll.unregister(fd)

    def close(self, fd: int) -> None:
        """Forget and close at the end of this round."""
        self.forget(fd)
        self._closing.append(fd)

    def call_at(self, deadline: float, callback: Callable[[], None]) -> None:
        """Call once when `time.monotonic()` reaches `deadline`."""
        self._timers.append((deadline, callback))

    def cancel(self, callback: Callable[[], None]) -> None:
        """Drop the timers of `callback`."""
        self._timers = [timer for timer in self._timers if timer[1] != callback]

    def turn(self) -> None:
        """Wait for one round of events or timers and serve it."""
        timeout = -1.0
        if self._timers:
            timeout = max(0.0, min(timer[0] for timer in self._timers) - time.monotonic())
        if self._busy and not 0 <= timeout < IDLE_S:
            timeout = IDLE_S
        ready = self._epoll.poll(timeout, 32)
        for fd, events in ready:
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(events)
        if self._timers:
            now = time.monotonic()
            due = [timer for timer in self._timers if timer[0] <= now]
            if due:
                self._timers = [timer for timer in self._timers if timer[0] > now]
                for _, callback_due in due:
                    callback_due()
        if self._closing:
            closing, self._closing = self._closing, []
            for fd in closing:
                os.close(fd)
        if self._busy and not ready and timeout == IDLE_S:
            self._busy = False
            if self._on_idle is not None:
                self._on_idle()
