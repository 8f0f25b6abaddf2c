"""One child process of the monitor (the container's init or an exec) until it is reaped and its output is read."""

from __future__ import annotations

import os
import select
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

    reaper_fd: when the process is somebody else's child, where that one tells its status (`launcher`).
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
        reaper_fd: int = -1,
    ) -> None:
        self.streams = streams
        self.status: int | None = None
        self.signal = 0
        self.drained = False
        self._loop = loop
        self.pidfd = pidfd
        self._reaper_fd = reaper_fd
        self._on_ended = ended
        self._on_drained = drained
        self._watched = pidfd if reaper_fd < 0 else reaper_fd
        loop.watch(self._watched, READ, self._exited)

    @property
    def running(self) -> bool:
        """False once the process was reaped."""
        return self.status is None

    def look(self) -> None:
        """Take note of an end that has come already, now and not in the next round."""
        now = select.poll()
        now.register(self._watched, select.POLLIN)
        if now.poll(0):
            self._exited(READ)

    def kill(self, number: int) -> None:
        """Send a signal; raises ProcessLookupError when the process has ended."""
        if not self.running:
            raise ProcessLookupError
        signal.pidfd_send_signal(self.pidfd, number)

    def _exited(self, _events: int) -> None:
        if self._reaper_fd < 0:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
            if result is None:
                return
            code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        else:
            code = self._told()
        self._loop.close(self.pidfd)
        if code < 0:
            self.signal = -code
        self.status = code if code >= 0 else 128 - code
        drained = self.streams.drain()
        self._on_ended(self)
        if drained:
            self._complete()
        else:
            self.streams.on_end = self._complete
            self._loop.call_at(time.monotonic() + DRAIN_S, self._complete)

    def _told(self) -> int:
        try:
            told = os.read(self._reaper_fd, 64)
        except OSError:
            told = b""
        self._loop.close(self._reaper_fd)
        if not told:  # the reaper was killed: let it be true what we say of the process
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return int(told or -signal.SIGKILL)

    def _complete(self) -> None:
        if not self.drained:
            self.drained = True
            self.streams.on_end = None
            self._loop.cancel(self._complete)
            self._on_drained(self)
