"""One thread that waits for descriptors to be readable, writable or both, epoll(7), and for moments."""

from __future__ import annotations

import heapq
import itertools
import select
import sys
import time
from collections.abc import Callable

__all__ = ["GONE", "IN", "OUT", "Loop", "Timer"]

IN, OUT, GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR

Call = Callable[[int], None]


class Timer:
    """A call that is due at a moment, unless cancelled."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Do not call."""
        self.call = None


class Loop:
    """Calls back with what a descriptor is ready for, and when a timer is due.

    Descriptors watched with `first` are served before all others of the same moment.
    """

    def __init__(self, name: str) -> None:
        """name: whose it is, in what is written to stderr when a call fails."""
        self.running = True
        self._name = name
        self._epoll = select.epoll()
        self._calls: dict[int, Call] = {}
        self._masks: dict[int, int] = {}
        self._first: set[int] = set()
        # Registered since the last wait: what was reported then of their numbers was of others, closed since.
        self._fresh: set[int] = set()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()

    def watch(self, fd: int, mask: int, call: Call, *, first: bool = False) -> None:
        """Call when it is ready for any of `mask`, or gone; replaces what it was watched for before."""
        known = self._masks.get(fd)
        if known is None:
            self._epoll.register(fd, mask)
            self._fresh.add(fd)
        elif known != mask:
            self._epoll.modify(fd, mask)
        self._masks[fd] = mask
        self._calls[fd] = call
        if first:
            self._first.add(fd)

    def forget(self, fd: int) -> None:
        """Watch it no longer; before it is closed. One that is not watched is fine."""
        if self._masks.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            del self._calls[fd]
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

    def step(self, wait_s: float | None = None) -> None:
        """Do what is ready or due; wait for it, at most that long."""
        timers = self._timers
        while timers and timers[0][2].call is None:
            heapq.heappop(timers)
        if timers:
            due = max(0.0, timers[0][0] - time.monotonic())
            wait_s = due if wait_s is None else min(due, wait_s)
        ready = self._epoll.poll(wait_s)
        if self._first:
            ready.sort(key=lambda each: each[0] not in self._first)
        self._fresh.clear()
        for fd, events in ready:
            call = self._calls.get(fd)
            if call is not None and fd not in self._fresh:
                self._fenced(call, events)
        now = time.monotonic() if timers else 0.0
        while timers and timers[0][0] <= now:
            timer = heapq.heappop(timers)[2]
            if timer.call is not None:
                self._fenced(timer.call)

    def _fenced(self, call: Callable[..., None], *events: int) -> None:
        """Whatever one call does, the others go on."""
        try:
            call(*events)
        except Exception as error:  # noqa: BLE001
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else "?"
            print(f"{self._name}: {type(error).__name__}: {error} at {where}", file=sys.stderr, flush=True)
