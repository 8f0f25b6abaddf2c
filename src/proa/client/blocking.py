"""The blocking transport: a pool of connections, shared by threads."""

from __future__ import annotations

import select
import threading
from typing import Any

from proa.client.connection import Connection
from proa.client.endpoint import Endpoint
from proa.client.failures import failure
from proa.client.flow import Channel, Exchange, Instruction, Open, Read, Reply, Request, Write
from proa.errors import Unavailable

__all__ = ["BlockingTransport"]

_IDLE = 8  # connections kept for the next requests


class _Stream:
    """A channel: its connection, and what arrived while we were writing."""

    __slots__ = ("connection", "early")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.early: list[bytes] = []

    def close(self) -> None:
        self.connection.close()


class BlockingTransport:
    """Performs instructions (proa.client.flow) and returns when they are done; safe for several threads.

    start: whether the engine may be started when its own place is silent
    """

    def __init__(self, endpoint: Endpoint, *, start: bool = True) -> None:
        self.endpoint = endpoint
        self._start = start
        self._idle: list[Connection] = []
        self._lock = threading.Lock()

    def perform(self, instruction: Instruction) -> Any:
        """The instruction's result. Raises Unavailable, Corrupt, or the error kind the engine answered with."""
        if isinstance(instruction, Exchange):
            connection = self._answered(instruction.request)
            try:
                reply = Reply(connection.head().status, connection.head().headers, connection.body())
            except BaseException:
                connection.close()
                raise
            self._keep(connection)
            if reply.status >= 400 or reply.status == 304:
                raise failure(reply.status, reply.body)
            return reply
        if isinstance(instruction, Open):
            return self._open(instruction.request)
        stream = _stream_of(instruction.channel)
        if isinstance(instruction, Read):
            return self._read(stream)
        if isinstance(instruction, Write):
            return self._write(stream, instruction.data)
        stream.connection.half_close()
        return None

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _open(self, request: Request) -> Channel:
        connection = self._answered(request)
        try:
            head = connection.head()
            if head.status >= 400 or head.status == 304:
                raise failure(head.status, connection.body())
        except BaseException:
            connection.close()
            raise
        return _Stream(connection)

    def _read(self, stream: _Stream) -> bytes:
        if stream.early:
            return stream.early.pop(0)
        return stream.connection.raw_read() if stream.connection.upgraded else stream.connection.read()

    def _write(self, stream: _Stream, data: bytes) -> None:
        connection = stream.connection
        connection.set_blocking(False)
        try:
            poller = select.poll()
            poller.register(connection.fileno(), select.POLLIN | select.POLLOUT)
            ended = False
            while data:
                for _, event in poller.poll():
                    if event & select.POLLOUT:
                        data = data[connection.send_some(data) :]
                    if event & (select.POLLIN | select.POLLHUP) and not ended:
                        piece = connection.receive_some()
                        if piece:
                            stream.early.append(piece)
                        elif piece == b"":
                            stream.early.append(b"")
                            ended = True
                            poller.modify(connection.fileno(), select.POLLOUT)
        finally:
            connection.set_blocking(True)

    def _answered(self, request: Request) -> Connection:
        """A connection on which the reply has begun; a request that an ending engine did not read is sent once more."""
        for last in (False, True):
            connection = None
            try:
                connection = self._send(request)
                connection.head()
            except Unavailable as error:
                if connection is not None:
                    connection.close()
                if last or not isinstance(request.body, bytes) or not error.fields.get("unread"):
                    raise
            except BaseException:
                if connection is not None:
                    connection.close()
                raise
            else:
                return connection
        raise AssertionError

    def _send(self, request: Request) -> Connection:
        connection = self._take() or Connection.open(self.endpoint, start=self._start)
        try:
            if isinstance(request.body, bytes):
                connection.send(
                    request.method, request.target, request.body, headers=request.headers, upgrade=request.upgrade
                )
            else:
                connection.send_stream(request.method, request.target, request.body, headers=request.headers)
        except BaseException:
            connection.close()
            raise
        return connection

    def _take(self) -> Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            poller = select.poll()
            poller.register(connection.fileno(), select.POLLIN)
            if not poller.poll(0):
                return connection
            connection.close()  # the engine has closed it, or says something unasked

    def _keep(self, connection: Connection) -> None:
        if connection.reusable:
            with self._lock:
                if len(self._idle) < _IDLE:
                    self._idle.append(connection)
                    return
        connection.close()


def _stream_of(channel: Channel) -> _Stream:
    assert isinstance(channel, _Stream)
    return channel
