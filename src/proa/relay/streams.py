"""tcp connections, relayed by splice(2): bytes go from socket to socket by way of a pipe and are never copied to us."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Callable

from proa.linux.events import GONE, IN, OUT, Loop
from proa.relay.sources import CLOSED, SYN_SENT, Place, Sources

__all__ = ["Pipes", "Stream"]

_PIECE_BYTES = 1 << 20
_PIPE_BYTES = 256 << 10
_PIPES_KEPT = 64
# How often one direction goes on before the other connections have their turn.
_ROUNDS = 8
_MUCH_BYTES = 32 << 10
_RESET = struct.pack("@ii", 1, 0)
_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE

Pipe = tuple[int, int]


class Pipes:
    """Empty pipes: a connection has one only while bytes of it are on their way."""

    def __init__(self) -> None:
        self._empty: list[Pipe] = []

    def take(self) -> Pipe:
        """An empty pipe."""
        if self._empty:
            return self._empty.pop()
        pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except PermissionError:
            pass  # the user's pipes have all the memory they may have: a small one does as well
        return pipe

    def give(self, pipe: Pipe, *, empty: bool = True) -> None:
        """It is no longer used; empty: nothing is left in it."""
        if empty and len(self._empty) < _PIPES_KEPT:
            self._empty.append(pipe)
        else:
            for fd in pipe:
                os.close(fd)


def _prepare(end: socket.socket) -> None:
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class _Way:
    """One direction."""

    __slots__ = ("ended", "pending", "pipe", "sink", "source")

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.pipe: Pipe | None = None
        self.pending = 0
        self.ended = False


class Stream:
    """A client's connection and ours to the container; `closed` is called once, when both are over.

    An end of one direction is passed on as such, a reset of one side as a reset of the other.
    """

    def __init__(
        self,
        loop: Loop,
        pipes: Pipes,
        sources: Sources,
        outer: socket.socket,
        client: Place,
        targets: list[Place],
        closed: Callable[[Stream], None],
    ) -> None:
        """targets: where the container may be listening, tried in turn; the one that answers is put first."""
        self.target: Place = targets[0]
        self._targets = targets
        self._loop, self._pipes, self._sources, self._closed = loop, pipes, sources, closed
        self._client = client
        self._left = list(targets)
        self._outer = outer
        self._inner: socket.socket | None = None
        self._ways: list[_Way] = []
        _prepare(outer)

    def connect(self) -> None:
        """Connect to where the container may be next; nowhere else to try: end the client's connection."""
        while self._left:
            self.target = self._left.pop(0)
            try:
                inner, state = self._sources.stream(self.target, self._client)
            except OSError:
                continue
            if state == CLOSED:
                inner.close()  # refused
                continue
            self._inner = inner
            if state == SYN_SENT:
                self._loop.watch(inner.fileno(), OUT, self._connected)
            else:
                # Containers answer while we ask, so nearly always there is nothing to wait for.
                self._begin(inner)
            return
        self.abort()

    def abort(self) -> None:
        """End both connections with a reset."""
        for end in (self._outer, self._inner):
            if end is not None:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close()

    def _close(self) -> None:
        for way in self._ways:
            if way.pipe is not None:
                self._pipes.give(way.pipe, empty=not way.pending)
                way.pipe = None
        for end in (self._outer, self._inner):
            if end is not None:
                self._loop.forget(end.fileno())
                end.close()
        self._closed(self)

    def _connected(self, _: int) -> None:
        inner = self._inner
        assert inner is not None
        if inner.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._loop.forget(inner.fileno())
            inner.close()
            self._inner = None
            self.connect()
            return
        self._begin(inner)

    def _begin(self, inner: socket.socket) -> None:
        """The container has answered."""
        if self.target != self._targets[0] and self.target in self._targets:
            self._targets.remove(self.target)
            self._targets.insert(0, self.target)
        _prepare(inner)
        self._ways = [_Way(self._outer, inner), _Way(inner, self._outer)]
        self._outer_ready(0)  # what the client said meanwhile

    def _outer_ready(self, events: int) -> None:
        outward, inward = self._ways
        self._ready(outward, inward, events)

    def _inner_ready(self, events: int) -> None:
        outward, inward = self._ways
        self._ready(inward, outward, events)

    def _ready(self, reading: _Way, writing: _Way, events: int) -> None:
        """One end is ready: the source of one direction, the sink of the other."""
        end = reading.source
        try:
            if events & GONE and end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.abort()
                return
            if writing.pending:
                self._pump(writing)
            if not reading.ended:
                self._pump(reading)
        except OSError:
            self.abort()
            return
        outward, inward = self._ways
        if all(way.ended and not way.pending for way in (outward, inward)):
            self._close()
            return
        self._loop.watch(outward.source.fileno(), self._wanted(outward, inward), self._outer_ready)
        self._loop.watch(inward.source.fileno(), self._wanted(inward, outward), self._inner_ready)
        if events & GONE and not self._wanted(reading, writing):
            # Over in both directions, and its last bytes wait for the other side: it would be reported for ever.
            self._loop.forget(end.fileno())

    @staticmethod
    def _wanted(reading: _Way, writing: _Way) -> int:
        return (0 if reading.ended or reading.pending else IN) | (OUT if writing.pending else 0)

    def _pump(self, way: _Way) -> None:
        """Move bytes until one side makes us wait. Raises OSError for a connection that is broken."""
        if way.pipe is None:
            way.pipe = self._pipes.take()
        reader, writer = way.pipe
        source, sink = way.source.fileno(), way.sink.fileno()
        try:
            for _ in range(_ROUNDS):
                if not way.pending:
                    if way.ended:
                        break
                    way.pending = os.splice(source, writer, _PIECE_BYTES, flags=_FLAGS)
                    if not way.pending:
                        way.ended = True
                        way.sink.shutdown(socket.SHUT_WR)
                        break
                moved = way.pending
                way.pending -= os.splice(reader, sink, moved, flags=_FLAGS)
                if moved < _MUCH_BYTES and not way.pending:
                    break  # most likely all there was
        except BlockingIOError:
            pass
        if not way.pending:
            self._pipes.give(way.pipe)
            way.pipe = None
