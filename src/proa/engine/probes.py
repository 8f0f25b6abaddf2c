"""One run of a healthcheck: an exec, its first bytes of output, its status, and an end to it when it takes too long."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from proa.engine.agenda import Ticket
from proa.engine.clock import rfc3339
from proa.engine.types import Container, ExecRequest, ProbeResult
from proa.errors import ProaError

if TYPE_CHECKING:
    from proa.engine.engine import Engine

OUTPUT_LIMIT = 4096  # bytes kept, as Docker; the rest is read and dropped
# Output may be on its way when the end is known; a child left behind that keeps the pipe open is not waited for.
DRAIN_S = 0.5
FAILED = -1
_HEADER = 8


class Probe:
    """Runs once; `done` is called exactly once, on a worker of the agenda, with the probe and its result."""

    def __init__(self, engine: Engine, timeout_s: float, done: Callable[[Probe, ProbeResult], None]) -> None:
        self._engine = engine
        self._agenda = engine.agenda
        self._timeout_s = timeout_s
        self._done = done
        self._lock = threading.Lock()
        self._started_ns = time.time_ns()
        self._socket: socket.socket | None = None
        self._raw = bytearray()
        self._output = bytearray()
        self._status: int | None = None
        self._drained = False
        self._over = False
        self._timer: Ticket | None = None
        self.id = ""

    def prepare(self, record: Container, command: list[str]) -> str:
        """Create the exec and return its id. Raises what `Execs.create` does."""
        request = ExecRequest(cmd=command, attach_stdout=True, attach_stderr=True)
        self.id = self._engine.execs.create(record.id, request)
        return self.id

    def run(self) -> None:
        """Start it. Raises what `Execs.start` does."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        with self._lock:
            self._socket = ours
            self._timer = self._agenda.later(self._timeout_s, self._late)
            self._agenda.watch(ours.fileno(), self._readable)
        self._engine.execs.start(self.id, theirs.detach(), detach=False, tty=False)

    def ended(self, status: int) -> None:
        """The exec has ended; must not block."""
        with self._lock:
            self._status = status
            drained = self._drained
        if drained:
            self._agenda.soon(self._finish)
        else:
            self._agenda.later(DRAIN_S, self._finish)

    def fail(self, why: str) -> None:
        """It could not be run."""
        self._finish(FAILED, why)

    def abandon(self) -> None:
        """Nobody wants the result any more: the container ends, or is paused."""
        with self._lock:
            over, self._over = self._over, True
        if not over:
            self._clean_up()
            self._engine.execs.discard(self.id)

    def _readable(self) -> None:
        with self._lock:
            sock = self._socket
            if sock is None:
                return
            try:
                data = sock.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                self._take(data)
                return
            self._agenda.forget(sock.fileno())
            self._drained = True
            known = self._status is not None
        if known:
            self._agenda.soon(self._finish)

    def _take(self, data: bytes) -> None:
        """Keep the beginning of the output, without the frames' headers."""
        self._raw += data
        while len(self._raw) >= _HEADER:
            end = _HEADER + int.from_bytes(self._raw[4:_HEADER], "big")
            if len(self._raw) < end:
                return
            self._output += self._raw[_HEADER:end][: max(OUTPUT_LIMIT - len(self._output), 0)]
            del self._raw[:end]

    def _late(self) -> None:
        try:
            self._engine.execs.kill(self.id)
        except ProaError:
            pass  # it has ended just now, or its container
        said = f": {self._text()}" if self._output else ""
        self._finish(FAILED, f"Health check exceeded timeout ({_seconds(self._timeout_s)}){said}")

    def _text(self) -> str:
        return self._output.decode("utf-8", "replace")

    def _finish(self, status: int | None = None, output: str | None = None) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
        self._clean_up()
        code = self._status if status is None else status
        result = ProbeResult(
            start=rfc3339(self._started_ns),
            end=rfc3339(time.time_ns()),
            exit_code=FAILED if code is None else code,
            output=self._text() if output is None else output,
        )
        self._done(self, result)

    def _clean_up(self) -> None:
        with self._lock:
            sock, self._socket = self._socket, None
            if self._timer is not None:
                self._timer.cancel()
        if sock is not None:
            self._agenda.forget(sock.fileno())
            sock.close()


def _seconds(seconds: float) -> str:
    """`1.5s`, `2m0s`, `250ms`, as Go writes durations."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or hours else "") + f"{rest:g}s"


__all__ = ["Probe"]
