"""One thread that waits for sockets and for moments."""

from __future__ import annotations

import heapq
import itertools
import select
import sys
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Loop", "Timer"]


class _Descriptor(Protocol):
    def fileno(self) -> int: ...


class Timer:
    """A call that is due at a moment, unless cancelled."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Do not call."""
        self.call = None


class Loop:
    """Calls back when a descriptor is readable (or writable) and when a timer is due.

    Descriptors watched with `first` are served before all others of the same moment.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._first: set[int] = set()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self.running = True

    def watch(
        self, thing: _Descriptor, call: Callable[[], None], *, writable: bool = False, first: bool = False
    ) -> None:
        """Call whenever the descriptor is ready; replaces what it was watched for before."""
        fd = thing.fileno()
        mask = select.EPOLLOUT if writable else select.EPOLLIN
        if fd in self._calls:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._calls[fd] = call
        if first:
            self._first.add(fd)

    def forget(self, thing: _Descriptor) -> None:
        """Watch it no longer; before it is closed."""
        fd = thing.fileno()
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        self._first.discard(fd)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, so many seconds from now."""
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), timer))
        return timer

    def run(self) -> None:
        """Until `running` is False."""
        while self.running:
            self.step()

    def step(self) -> None:
        """Wait for the next thing and do it."""
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
        ready = [fd for fd, _ in self._epoll.poll(wait)]
        for fd in sorted(ready, key=lambda fd: fd not in self._first):
            call = self._calls.get(fd)
            if call is not None:
                self._fenced(call)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.call is not None:
                self._fenced(timer.call)

    def _fenced(self, call: Callable[[], None]) -> None:
        """Whatever one query does, the others are answered."""
        try:
            call()
        except Exception as error:  # noqa: BLE001
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else "?"
            print(f"resolver: {type(error).__name__}: {error} at {where}", file=sys.stderr, flush=True)
