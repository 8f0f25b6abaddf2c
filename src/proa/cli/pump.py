"""Input and output at once, by poll.

Output is written as it comes; input is read only when the engine has taken what was read before, so that neither side
can block the other for good.
"""

from __future__ import annotations

import select
from posix import read

from proa.cli.session import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.session import DetachKeys, Watched
    from proa.client.connection import Connection
    from proa.client.frames import Demultiplexer

__all__ = ["Pump"]

_INPUT_BYTES = 64 << 10


class Pump:
    """Both directions of one connection; made for one `run`."""

    def __init__(
        self,
        connection: Connection,
        demultiplexer: Demultiplexer | None,
        stdin: int | None,
        keys: DetachKeys | None,
        watched: Watched | None,
    ) -> None:
        self._connection = connection
        self._demultiplexer = demultiplexer
        self._stdin = stdin
        self._keys = keys
        self._watched = watched
        self._pending = b""  # input that the engine has not taken yet
        self._poller = select.poll()
        self._engine = connection.fileno()

    def run(self) -> bool:
        """Pass bytes until the container's side ends (True) or the detach keys are typed (False)."""
        connection, engine = self._connection, self._engine
        self._poller.register(engine, select.POLLIN)
        if self._stdin is not None:
            self._poller.register(self._stdin, select.POLLIN)
        if self._watched is not None:
            self._poller.register(self._watched.fileno(), select.POLLIN)
        connection.set_blocking(False)
        early = connection.early()
        if early:
            show(early, self._demultiplexer)
        while True:
            for fd, event in self._poller.poll():
                if fd == engine:
                    if event & select.POLLOUT and self._pending:
                        self._send(self._pending)
                    if event & ~select.POLLOUT:
                        data = connection.receive_some()
                        if data == b"":
                            return True
                        if data:
                            show(data, self._demultiplexer)
                elif fd == self._stdin:
                    if not self._take_input(fd):
                        return False
                elif self._watched is not None:
                    self._poller.unregister(fd)
                    if self._watched.ready():
                        self._poller.register(self._watched.fileno(), select.POLLIN)

    def _take_input(self, fd: int) -> bool:
        """Read once and send on; False when the detach keys were typed."""
        try:
            data = read(fd, _INPUT_BYTES)
        except OSError:  # a terminal that hung up, a descriptor that was never open
            data = b""
        if not data:
            self._poller.unregister(fd)
            self._connection.half_close()
            return True
        if self._keys is not None:
            data, leave = self._keys.feed(data)
            if leave:
                self._connection.send_some(data)
                return False
        if data:
            self._send(data)
        return True

    def _send(self, data: bytes) -> None:
        """Send what the engine takes; while it does not take all, read no more input."""
        assert self._stdin is not None
        waited = bool(self._pending)
        self._pending = data[self._connection.send_some(data) :]
        if bool(self._pending) == waited:
            return
        if waited:
            self._poller.modify(self._engine, select.POLLIN)
            self._poller.register(self._stdin, select.POLLIN)
        else:
            self._poller.unregister(self._stdin)
            self._poller.modify(self._engine, select.POLLIN | select.POLLOUT)
