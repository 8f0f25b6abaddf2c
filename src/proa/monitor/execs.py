"""An exec and whoever watches it: the process, its streams, its client, its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from proa.monitor.attach import LINGER_S
from proa.monitor.child import Child
from proa.monitor.loop import Loop
from proa.monitor.protocol import Attach
from proa.monitor.records import ExecState
from proa.monitor.stdio import stream_names
from proa.monitor.streams import Streams

__all__ = ["Exec", "ExecProcess"]

SIGHUP, SIGKILL = 1, 9
# How long an exec whose client left may take to end by itself.
HANGUP_PATIENCE_S = 2.0


class ExecProcess(NamedTuple):
    """A started exec and the watcher's descriptors; no outputs when they are discarded, stdin_fd -1 for none."""

    state: ExecState
    pidfd: int
    outputs: list[int]
    stdin_fd: int

    @property
    def fds(self) -> list[int]:
        """In the order in which they are sent."""
        return [self.pidfd, *self.outputs, *([self.stdin_fd] if self.stdin_fd >= 0 else [])]

    @classmethod
    def received(cls, state: ExecState, fds: list[int], *, stdin: bool) -> ExecProcess:
        """From what was sent."""
        pidfd, *outputs = fds
        return cls(state, pidfd, outputs, outputs.pop() if stdin else -1)


class Exec:
    """One exec, watched until it has ended and its output is read. `state` is kept true.

    client_fd: the attached client, owned from now on, -1 for none, and how it joins. reaper_fd: where its status is
    told, when it is another one's child (`Child`).
    on_ended(exec), on_drained(child): as of `Child`, after the client has been told; on_detach: as of `Streams`.
    """

    def __init__(
        self,
        loop: Loop,
        process: ExecProcess,
        *,
        client_fd: int,
        attach: Attach | None,
        reaper_fd: int = -1,
        on_ended: Callable[[Exec], None],
        on_drained: Callable[[Child], None] | None = None,
        on_detach: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._on_ended = on_ended
        self._on_drained = on_drained
        self.state = process.state
        tty = process.state.tty
        outputs = dict(zip(process.outputs, stream_names(tty), strict=False))  # none, when they are discarded
        streams = Streams(loop, outputs, process.stdin_fd, tty=tty, stdin_once=True, on_detach=on_detach)
        self.child = Child(loop, process.pidfd, streams, ended=self._ended, drained=self._drained, reaper_fd=reaper_fd)
        streams.on_lost = self._client_lost
        if attach is not None:
            streams.attach(client_fd, attach)

    def run(self) -> None:
        """Watch it, and nothing else, to the end; a client that is slow then has `LINGER_S`."""
        self.child.look()
        while not self.child.drained:
            self._loop.turn()
        deadline = time.monotonic() + LINGER_S
        while not self.child.streams.idle and time.monotonic() < deadline:
            self._loop.turn()

    def _ended(self, child: Child) -> None:
        assert child.status is not None
        self.state.status, self.state.signal = child.status, child.signal
        if child.streams.ended:
            child.streams.finish(child.status)  # the client hears of it first
        self._on_ended(self)

    def _drained(self, child: Child) -> None:
        child.streams.finish(child.status)
        if self._on_drained is not None:
            self._on_drained(child)

    def _client_lost(self) -> None:
        """As a terminal's end does, and for who takes no notice a little later for good."""
        self._end(SIGHUP)
        self._loop.call_at(time.monotonic() + HANGUP_PATIENCE_S, partial(self._end, SIGKILL))

    def _end(self, number: int) -> None:
        try:
            self.child.kill(number)
        except ProcessLookupError:
            pass
