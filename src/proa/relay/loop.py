"""One thread that waits for sockets to be readable, writable or both."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable

__all__ = ["GONE", "IN", "OUT", "Loop"]

IN, OUT, GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR

Call = Callable[[int], None]


class Loop:
    """Calls back with what a descriptor is ready for."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Call] = {}
        self._masks: dict[int, int] = {}
        # Registered since the last wait: what was reported then of their numbers was of others, closed since.
        self._fresh: set[int] = set()

    def watch(self, fd: int, mask: int, call: Call) -> None:
        """Call when it is ready for any of `mask`, or gone; replaces what it was watched for before."""
        known = self._masks.get(fd)
        if known is None:
            self._epoll.register(fd, mask)
            self._fresh.add(fd)
        elif known != mask:
            self._epoll.modify(fd, mask)
        self._masks[fd] = mask
        self._calls[fd] = call

    def forget(self, fd: int) -> None:
        """Watch it no longer; before it is closed. One that is not watched is fine."""
        if self._masks.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            del self._calls[fd]

    def step(self, wait_s: float) -> None:
        """Do what is ready; wait for it at most that long."""
        ready = self._epoll.poll(wait_s, 256)
        self._fresh.clear()
        for fd, events in ready:
            call = self._calls.get(fd)
            if call is not None and fd not in self._fresh:
                self._fenced(call, events)

    def _fenced(self, call: Call, events: int) -> None:
        """Whatever one connection does, the others go on."""
        try:
            call(events)
        except Exception as error:  # noqa: BLE001
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else "?"
            print(f"relay: {type(error).__name__}: {error} at {where}", file=sys.stderr, flush=True)
