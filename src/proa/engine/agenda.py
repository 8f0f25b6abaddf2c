"""The agenda: what the engine does later, or when a descriptor becomes readable, without a thread for each.

One thread keeps the times and the descriptors, and only starts with the first of them; what may block is done by a few
workers. Times are monotonic: neither a set clock nor a suspended machine makes anything happen twice.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

log = logging.getLogger(__name__)

WORKERS = 8
CLOSE_S = 15.0
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Ticket:
    """One thing to do later; `cancel` is harmless at any time."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Do not do it, unless it is being done already."""
        self._call = None

    def take(self) -> Callable[[], object] | None:
        """What to do, once; None when it was cancelled or is done."""
        call, self._call = self._call, None
        return call


class Agenda:
    """Times and descriptors to wait for, and workers to do what is due."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: list[tuple[float, int, Ticket]] = []
        self._order = itertools.count()
        self._watched: dict[int, Callable[[], object]] = {}
        self._thread: threading.Thread | None = None
        self._poll = select.epoll()
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake_r, select.EPOLLIN)
        self._closed = False
        self._busy = 0
        self._quiet = threading.Condition(self._lock)
        self._workers = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="agenda")

    def soon(self, call: Callable[..., object], *arguments: Any) -> None:
        """Do it now, on a worker: it may block. After `close` nothing is done any more."""
        with self._lock:
            if self._closed:
                return  # the next engine finds in the records what is to be done
            self._busy += 1
        self._workers.submit(self._work, call, *arguments)

    def _work(self, call: Callable[..., object], *arguments: Any) -> None:
        try:
            _fenced(call, *arguments)
        finally:
            with self._lock:
                self._busy -= 1
                self._quiet.notify_all()

    def later(self, delay_s: float, call: Callable[[], object]) -> Ticket:
        """Do it on a worker after so many seconds."""
        ticket = Ticket(call)
        with self._lock:
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._order), ticket))
            first = self._due[0][2] is ticket
            self._ensure_thread()
        if first:
            self._wake()
        return ticket

    def watch(self, fd: int, call: Callable[[], object]) -> None:
        """Call it on the agenda's own thread whenever the descriptor is readable, until `forget`: it must not block."""
        with self._lock:
            self._watched[fd] = call
            self._ensure_thread()
        self._poll.register(fd, _READABLE)

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor, before it is closed."""
        with self._lock:
            if self._watched.pop(fd, None) is not None and not self._closed:
                self._poll.unregister(fd)

    def close(self) -> None:
        """Let what is being done end, within reason (a container may take for ever to stop); drop the rest."""
        with self._lock:
            self._closed = True
            self._due.clear()
        self._wake()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            quiet = self._quiet.wait_for(lambda: not self._busy, CLOSE_S)
        self._workers.shutdown(wait=quiet)
        self._poll.close()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def _ensure_thread(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="agenda", daemon=True)
            self._thread.start()

    def _wake(self) -> None:
        try:
            os.write(self._wake_w, b"x")
        except BlockingIOError:
            pass  # it has been told often enough

    def _run(self) -> None:
        while not self._closed:
            for fd, _ in self._poll.poll(self._pause()):
                if fd == self._wake_r:
                    os.read(fd, 4096)
                elif (call := self._watched.get(fd)) is not None:
                    _fenced(call)
            self._do_due()

    def _pause(self) -> float:
        """Seconds until something is due, -1 for ever."""
        with self._lock:
            while self._due and self._due[0][2]._call is None:
                heapq.heappop(self._due)
            return max(self._due[0][0] - time.monotonic(), 0.0) if self._due else -1

    def _do_due(self) -> None:
        now = time.monotonic()
        while True:
            with self._lock:
                if not self._due or self._due[0][0] > now:
                    return
                ticket = heapq.heappop(self._due)[2]
            if (call := ticket.take()) is not None:
                self.soon(call)


def _fenced(call: Callable[..., object], *arguments: Any) -> None:
    """Whatever one thing does, the others are done."""
    try:
        call(*arguments)
    except Exception:
        log.exception("%s failed", getattr(call, "__qualname__", call))
