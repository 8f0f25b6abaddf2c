"""The asyncio transport: the same instructions over asyncio's streams."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from proa.client.connection import MAX_BODY_BYTES, RECEIVE_BYTES, dial_tls, unreachable
from proa.client.endpoint import Endpoint
from proa.client.failures import failure
from proa.client.flow import Channel, Exchange, Instruction, Open, Read, Reply, Request, Write
from proa.client.http import Head, ReplyReader, request_head
from proa.errors import Exhausted, Invalid, Unavailable

if TYPE_CHECKING:
    from proa.client.tls_relay import Relay

__all__ = ["AwaitingTransport"]

_IDLE = 8


class _Stream:
    """One connection: asyncio's reader and writer, and the reply being read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, relay: Relay | None = None) -> None:
        self.reader = reader
        self.writer = writer
        self._relay = relay
        self.reply = ReplyReader()
        self.early: list[bytes] = []
        self._reading: asyncio.Future[bytes] | None = None  # a read begun while writing
        self._reset = False

    def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self.writer.close()

    async def receive(self) -> bytes:
        """The next bytes of the socket, empty at its end."""
        if self._reading is not None:
            await asyncio.wait({self._reading})
            reading, self._reading = self._reading, None
            return reading.result()
        return await self._receive()

    async def _receive(self) -> bytes:
        try:
            return await self.reader.read(RECEIVE_BYTES)
        except ConnectionResetError:
            self._reset = True
            return b""
        except ConnectionError:
            return b""

    async def head(self) -> Head:
        while self.reply.head is None:
            data = await self.receive()
            if not data and self._relay is not None and self._relay.failure:
                raise self._relay.refusal()
            if not data:
                # A unix socket is reset when its other end is closed with bytes of ours unread (`Connection`).
                local = self._relay is None and self.writer.get_extra_info("socket").family == socket.AF_UNIX
                raise Unavailable(
                    "the engine closed the connection without an answer",
                    code="engine-gone",
                    unread=local and self._reset,
                )
            self.reply.feed(data)
        return self.reply.head

    async def read(self) -> bytes:
        """The next bytes of the body or of the raw stream, empty at the end."""
        if self.early:
            return self.early.pop(0)
        if self.reply.upgraded:
            rest, self.reply.rest = self.reply.rest, b""
            return rest or await self.receive()
        while True:
            data = self.reply.take()
            if data or self.reply.done:
                return data
            self.reply.feed(await self.receive())

    async def body(self) -> bytes:
        pieces, size = [], 0
        while data := await self.read():
            size += len(data)
            if size > MAX_BODY_BYTES:
                raise Exhausted(f"the engine's reply is longer than {MAX_BODY_BYTES} bytes", code="reply-too-long")
            pieces.append(data)
        return b"".join(pieces)

    async def write(self, data: bytes) -> None:
        """Send, taking in what arrives meanwhile so that neither side can block the other."""
        self.writer.write(data)
        drain = asyncio.ensure_future(self.writer.drain())
        ended = False
        try:
            while not drain.done():
                waited: set[asyncio.Future[Any]] = {drain}
                if not ended:
                    self._reading = self._reading or asyncio.ensure_future(self._receive())
                    waited.add(self._reading)
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if self._reading is not None and self._reading.done():
                    self.early.append(self._reading.result())
                    self._reading = None
                    ended = not self.early[-1]
            drain.result()
        except (BrokenPipeError, ConnectionResetError):
            pass  # a stream the other side has closed swallows everything
        finally:
            drain.cancel()


class AwaitingTransport:
    """Performs instructions (proa.client.flow) as coroutines; belongs to one event loop.

    start: whether the engine may be started when its own place is silent
    """

    def __init__(self, endpoint: Endpoint, *, start: bool = True) -> None:
        self.endpoint = endpoint
        self._start = start
        self._idle: list[_Stream] = []

    async def perform(self, instruction: Instruction) -> Any:
        """The instruction's result. Raises Unavailable, Corrupt, or the error kind the engine answered with."""
        if isinstance(instruction, Exchange):
            stream = await self._answered(instruction.request)
            try:
                head = await stream.head()
                reply = Reply(head.status, head.headers, await stream.body())
            except BaseException:
                stream.close()
                raise
            self._keep(stream)
            if reply.status >= 400 or reply.status == 304:
                raise failure(reply.status, reply.body)
            return reply
        if isinstance(instruction, Open):
            stream = await self._answered(instruction.request)
            try:
                head = await stream.head()
                if head.status >= 400 or head.status == 304:
                    raise failure(head.status, await stream.body())
            except BaseException:
                stream.close()
                raise
            return stream
        stream = _stream_of(instruction.channel)
        if isinstance(instruction, Read):
            return await stream.read()
        if isinstance(instruction, Write):
            return await stream.write(instruction.data)
        try:
            stream.writer.write_eof()
        except OSError:
            pass
        return None

    def close(self) -> None:
        """Close idle connections."""
        idle, self._idle = self._idle, []
        for stream in idle:
            stream.close()

    async def _answered(self, request: Request) -> _Stream:
        """A connection on which the reply has begun; a request that an ending engine did not read is sent once more."""
        for last in (False, True):
            stream = await self._send(request)
            try:
                await stream.head()
            except Unavailable as error:
                stream.close()
                if last or not isinstance(request.body, bytes) or not error.fields.get("unread"):
                    raise
            except BaseException:
                stream.close()
                raise
            else:
                return stream
        raise AssertionError

    async def _send(self, request: Request) -> _Stream:
        stream = self._take() or await self._connect()
        stream.reply = ReplyReader(request.method)
        try:
            body = request.body
            length = len(body) if isinstance(body, bytes) else None
            kind = "application/json" if length is not None else "application/x-tar"
            try:
                head = request_head(
                    request.method,
                    request.target,
                    length=length,
                    headers=request.headers,
                    upgrade=request.upgrade,
                    content_type=kind,
                    host=self.endpoint.authority,
                )
            except ValueError as error:
                raise Invalid(str(error)) from None
            stream.writer.write(head)
            try:
                if isinstance(body, bytes):
                    stream.writer.write(body)
                    await stream.writer.drain()
                else:
                    await _upload(stream.writer, body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the engine answered before it read everything: its reply says why
        except BaseException:
            stream.close()
            raise
        return stream

    async def _connect(self) -> _Stream:
        endpoint = self.endpoint
        try:
            return await _dial(endpoint)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if not (self._start and endpoint.starts):
                raise unreachable(endpoint, error) from None
        except OSError as error:
            raise unreachable(endpoint, error) from None
        from proa.client.connection import Connection

        connection = await asyncio.to_thread(Connection.open, endpoint)  # starts the engine
        connection.close()
        return await _dial(endpoint)

    def _take(self) -> _Stream | None:
        while self._idle:
            stream = self._idle.pop()
            if not stream.reader.at_eof() and not stream.writer.is_closing():
                return stream
            stream.close()
        return None

    def _keep(self, stream: _Stream) -> None:
        if stream.reply.reusable and len(self._idle) < _IDLE:
            self._idle.append(stream)
        else:
            stream.close()


async def _dial(endpoint: Endpoint) -> _Stream:
    if endpoint.path:
        return _Stream(*await asyncio.open_unix_connection(endpoint.path, limit=RECEIVE_BYTES))
    relay = await asyncio.to_thread(dial_tls, endpoint)
    if relay is not None:
        return _Stream(*await asyncio.open_connection(sock=relay.socket, limit=RECEIVE_BYTES), relay)
    return _Stream(*await asyncio.open_connection(endpoint.host, endpoint.port, limit=RECEIVE_BYTES))


async def _upload(writer: asyncio.StreamWriter, pieces: Iterable[bytes]) -> None:
    iterator: Iterator[bytes] = iter(pieces)
    while True:
        piece = await asyncio.to_thread(next, iterator, None)  # reading a file may block
        if piece is None:
            break
        if piece:
            writer.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
            await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _stream_of(channel: Channel) -> _Stream:
    assert isinstance(channel, _Stream)
    return channel
