"""One child process of the monitor (the container's init or an exec) until it is reaped and its output is read."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from proa.monitor.loop import READ, Loop
from proa.monitor.streams import Streams

__all__ = ["Child"]

# How long somebody who still holds the output of an ended process may go on writing (Docker waits as long).
DRAIN_S = 2.0


class Child:
    """Waits for a process by its pidfd, then drains its streams.

    ended(child) is called once `status` and `signal` are known, drained(child) once the output is complete; the
    caller then finishes the streams.
    """

    def __init__(
        self,
        loop: Loop,
        pidfd: int,
        streams: Streams,
        *,
        ended: Callable[[Child], None],
        drained: Callable[[Child], None],
    ) -> None:
        self.streams = streams
        self.status: int | None = None
        self.signal = 0
        self.drained = False
        self._loop = loop
        self.pidfd = pidfd
        self._on_ended = ended
        self._on_drained = drained
        loop.watch(self.pidfd, READ, self._exited)

    @property
    def running(self) -> bool:
        """False once the process was reaped."""
        return self.status is None

    def kill(self, number: int) -> None:
        """Send a signal; raises ProcessLookupError when the process has ended."""
        if not self.running:
            raise ProcessLookupError
        signal.pidfd_send_signal(self.pidfd, number)

    def _exited(self, _events: int) -> None:
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return
        self._loop.close(self.pidfd)
        if result.si_code == os.CLD_EXITED:
            self.status = result.si_status
        else:
            self.signal = result.si_status
            self.status = 128 + result.si_status
        self._on_ended(self)
        if self.streams.drain():
            self._complete()
        else:
            self.streams.on_end = self._complete
            self._loop.call_at(time.monotonic() + DRAIN_S, self._complete)

    def _complete(self) -> None:
        if not self.drained:
            self.drained = True
            self.streams.on_end = None
            self._loop.cancel(self._complete)
            self._on_drained(self)
