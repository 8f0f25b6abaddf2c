"""One attached client: a connected socket joined to a process's streams.

Output goes out in Docker's frames (1 byte stream number, 3 zero bytes, u32 big-endian length, payload) or raw for a
terminal. What the socket does not take at once is kept, at most one chunk of it: until it is gone the process's output
is not read, so a stuck client slows the process and costs no memory. End of input is not the end of the client, which
usually half-closes at once and goes on reading.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from proa.monitor.keys import DetachKeys
from proa.monitor.loop import ERROR, HANGUP, READ, WRITE, Loop
from proa.monitor.protocol import DEFAULT_DETACH_KEYS, Attach

if TYPE_CHECKING:
    from proa.monitor.streams import Streams

__all__ = ["Client", "LINGER_S"]

# How long a slow client may take to read what is left for it when the process has ended.
LINGER_S = 10.0

# Plain integers: the socket module's enumerations are slow to combine.
_NO_WAIT = int(socket.MSG_DONTWAIT)
_SEND_FLAGS = _NO_WAIT | int(socket.MSG_NOSIGNAL)


class Client:
    """A client socket in one of three states: attached, ending (only flushing), closed.

    fd: the connected socket, owned from now on; raises OSError when it is no socket.
    """

    __slots__ = (
        "_deadline",
        "_gone",
        "_keys",
        "_loop",
        "_pending",
        "_socket",
        "ending",
        "ends_exec",
        "followed",
        "held",
        "stdin",
        "streams",
        "tells_end",
        "wants",
    )

    def __init__(self, loop: Loop, streams: Streams, fd: int, how: Attach) -> None:
        self._socket = socket.socket(fileno=fd)
        self._loop = loop
        self._pending = b""
        self._gone = False
        self._deadline: float | None = None
        self.streams = streams
        self.ending = False
        self.stdin = how.stdin
        self.tells_end = how.tells_end
        self.ends_exec = how.ends_exec
        self.followed = how.followed
        self.held = how.held
        self.wants = frozenset(how.streams)
        self._keys: DetachKeys | None = None
        if streams.tty and how.stdin:
            keys = DEFAULT_DETACH_KEYS if how.detach_keys is None else bytes(how.detach_keys)
            self._keys = DetachKeys(keys) if keys else None

    @property
    def blocked(self) -> bool:
        """True while more output waits for the socket than the streams allow (none, while the process runs)."""
        return self.held or len(self._pending) > self.streams.backlog_bytes

    def send(self, chunk: memoryview) -> None:
        """Write output; what does not fit waits, and the caller must stop reading while `blocked`."""
        if self._gone:
            return
        # Only while it is held, or once the process has ended: what is left is then bounded by its pipes.
        if self._pending or self.held:
            self._pending += chunk
            return
        try:
            sent = self._socket.send(chunk, _SEND_FLAGS)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost()
            return
        if sent < len(chunk):
            self._pending = bytes(chunk[sent:])
            self.update()

    def update(self) -> None:
        """Watch for what can be done now; call when the stdin of the process opens, blocks or closes."""
        if self._socket.fileno() < 0 or self._gone:
            return
        mask = WRITE if self._pending and not self.held else 0
        if self._reading():
            mask |= READ
        self._loop.watch(self._socket.fileno(), mask, self._ready)

    def finish(self) -> None:
        """Flush what is left, then close; gives up after LINGER_S."""
        if self.ending:
            return
        self.ending = True
        self.stdin = False
        if self.held and not self._gone:
            return
        if not self._pending or self._gone:
            self._close()
            return
        self._deadline = time.monotonic() + LINGER_S
        self._loop.call_at(self._deadline, self._close)
        self.update()

    def release(self) -> None:
        """Whoever held it has written what comes first."""
        if not self.held:
            return
        self.held = False
        if self.ending:
            self.ending = False
            self.finish()
            return
        self.update()
        self.streams.unblock()

    def drain_input(self) -> None:
        """The client is gone but what it sent before is still to be passed on: go on reading until its end."""
        while self._gone and self._reading():
            self._receive()

    @property
    def gone(self) -> bool:
        """True when the peer closed, while its last input is still unread."""
        return self._gone

    def _reading(self) -> bool:
        return self.stdin and self.streams.stdin_ready

    def _ready(self, events: int) -> None:
        if events & WRITE and self._pending:
            self._flush()
        if self._socket.fileno() < 0:
            return
        if events & (READ | HANGUP | ERROR) and self._reading():
            self._receive()
        if events & (HANGUP | ERROR) and self._socket.fileno() >= 0 and not self._gone:
            self._lost()

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._pending, _SEND_FLAGS)
        except BlockingIOError:
            return
        except OSError:
            self._lost()
            return
        self._pending = self._pending[sent:]
        if self._pending:
            return
        if self.ending:
            self._close()
            return
        self.update()
        self.streams.unblock()

    def _receive(self) -> None:
        space = self.streams.input_space
        try:
            count = self._socket.recv_into(space, len(space), _NO_WAIT)
        except BlockingIOError:
            if not self._gone:
                return
            count = 0
        except OSError:
            count = 0
        if count == 0:
            self.stdin = False
            if self.streams.input_ended() and not self._gone:
                self.update()
            else:
                self.streams.detach(self)
            return
        self._take(space[:count])

    def receive_early(self, chunk: bytes) -> None:
        """Input that came before the socket was handed over."""
        if self.stdin and self.streams.stdin_open:
            self._take(memoryview(chunk))

    def _take(self, chunk: memoryview) -> None:
        if self._keys is None:
            self.streams.feed(chunk)
            return
        passed, detached = self._keys.feed(bytes(chunk))
        if passed:
            self.streams.feed(memoryview(passed))
        if detached:
            self.streams.detach(self, by_keys=True)

    def _lost(self) -> None:
        """The peer closed: nothing more can be sent, but input it sent before may still be in the socket."""
        self._pending = b""
        self._loop.forget(self._socket.fileno())
        if self.ending:
            self._close()
        elif self.stdin and self.streams.stdin_open:
            self._gone = True
            self.streams.unblock()
            self.drain_input()
        else:
            self.streams.detach(self)

    def _close(self) -> None:
        if self._socket.fileno() < 0:
            return
        if self._deadline is not None:
            self._loop.cancel(self._close)
        self._pending = b""
        try:
            # Others may hold the same socket: shutting down ends the stream for the peer at once. Input that was
            # never read would turn the end into a reset on TCP, so it is taken out first.
            while self._socket.recv(4096, _NO_WAIT):
                pass
        except OSError:
            pass
        try:
            if not self.followed:
                self._socket.shutdown(socket.SHUT_RDWR if self._socket.family == socket.AF_UNIX else socket.SHUT_WR)
        except OSError:
            pass
        self._loop.close(self._socket.detach())
        self.streams.closed(self)
