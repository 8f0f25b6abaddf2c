"""Serve `dispatch` over a listening socket: aiohttp's messages in, outcomes out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from proa.api.aiohttp_server import (
    AbstractStreamWriter,
    BaseRequest,
    RequestHandler,
    Response,
    Server,
    StreamReader,
    StreamResponse,
)
from proa.api.connection import Connection
from proa.api.dispatch import error_line, failed
from proa.api.handover import hand_over
from proa.api.messages import Hijack, Outcome, Reply, Request, Stream, WebSocket, frame
from proa.api.query import Query
from proa.api.routes import HEADERS
from proa.api.sockets.doors import Door
from proa.api.status import error_reply
from proa.errors import Denied, Invalid, ProaError, Unavailable

log = logging.getLogger("proa.api")

Dispatch = Callable[[Request], Awaitable[Outcome]]

#: An idle client may keep its connection this long; SDKs keep some open between calls.
KEEP_ALIVE_SECONDS = 600.0
#: How long a refused upload is still read, so that the client gets to see the answer.
LINGER_SECONDS = 2.0
LINE_LIMIT = 64 << 10
_HOST = re.compile(r"[A-Za-z0-9._~%:\[\]-]{0,255}", re.ASCII)


class ConnectionBody:
    """A request's body as aiohttp receives it."""

    def __init__(self, content: StreamReader, length: int | None) -> None:
        self._content = content
        self._length = length

    async def read(self, limit: int) -> bytes:
        """All of it. Raises Invalid past `limit` bytes, before reading them where the length says so."""
        too_large = Invalid(f"the request body is larger than {limit} bytes", code="body-too-large")
        if self._length is not None and self._length > limit:
            raise too_large
        received = bytearray()
        async for chunk in self.chunks():
            received += chunk
            if len(received) > limit:
                raise too_large
        return bytes(received)

    async def chunks(self) -> AsyncIterator[bytes]:
        """As it comes. Raises Invalid when the client ends it early or breaks its framing."""
        while True:
            try:
                chunk = await self._content.readany()
            except Exception as e:  # noqa: BLE001 aiohttp raises several kinds for a body it cannot read
                raise Invalid(f"the request body ended early: {e}", code="body-incomplete") from None
            if not chunk:
                return
            yield chunk


class HttpServer(Server):
    """aiohttp's low-level server with our connections, a cap on them, and `dispatch` behind."""

    def __init__(self, dispatch: Dispatch, *, max_connections: int = 4096) -> None:
        super().__init__(
            self._serve,
            access_log=None,
            logger=log,
            auto_decompress=False,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_line_size=LINE_LIMIT,
            max_field_size=LINE_LIMIT,
            tcp_keepalive=False,
        )
        self._dispatch = dispatch
        self.max_connections = max_connections
        self.joining = 0  # accepted by an Acceptor, not yet connected here
        self.in_flight = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def connected(self) -> int:
        """How many clients are connected, those just accepted included."""
        return len(self._connections) + self.joining

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """A connection is ready to be read."""
        self.joining -= 1
        super().connection_made(handler, transport)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """A connection is gone."""
        if handler in self._connections and isinstance(handler, Connection):
            handler.door.connected -= 1
        super().connection_lost(handler, exc)

    def connection(self, door: Door) -> Connection:
        """A protocol for one connection that was accepted at a door."""
        return Connection(self, door, loop=self._loop, **self._kwargs)

    def end_door(self, door: Door) -> None:
        """End the connections that came by a door that is no longer there."""
        for connection in self.connections:
            if isinstance(connection, Connection) and connection.door is door:
                connection.ending()

    async def end(self, grace_s: float) -> None:
        """Let requests in flight end, endless streams at once, the rest after `grace_s`; then close what is left."""
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.ending()
        try:
            async with asyncio.timeout(grace_s):
                await self._quiet.wait()
        except TimeoutError:
            log.warning("%d requests did not end within %.0f s", self.in_flight, grace_s)
        await self.shutdown(0.5)

    async def _serve(self, http: BaseRequest) -> StreamResponse:
        connection = http.protocol
        assert isinstance(connection, Connection)
        self.in_flight += 1
        self._quiet.clear()
        try:
            request = self._request(http, connection)
            outcome: Outcome
            if isinstance(request, Reply):
                outcome = request
            else:
                await _continue(http)
                outcome = await self._dispatch(request)
                if isinstance(outcome, Hijack):
                    return await _hijack(connection, request, outcome)
                if isinstance(outcome, WebSocket):
                    from proa.api.websocket import carry

                    return await carry(http, connection, outcome)
                if isinstance(outcome, Stream):
                    connection.release(http.content)
                    return await _stream(http, connection, request, outcome)
            connection.release(http.content)
            return _reply(http, outcome)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._quiet.set()

    def _request(self, http: BaseRequest, connection: Connection) -> Request | Reply:
        try:
            hosts = http.headers.getall("Host", [])
            if len(hosts) > 1 or (http.version >= (1, 1) and not hosts) or not all(map(_HOST.fullmatch, hosts)):
                raise Invalid("the request needs one valid Host header", code="host-invalid")
            if connection.door.kind == "tcp":
                _check_no_browser(http, hosts, connection.door)
            path, _, query = http.raw_path.partition("?")
            return Request(
                method=http.method,
                path=path,
                query=Query.parse(query.partition("#")[0]),
                headers=_lowered(http.headers),
                body=ConnectionBody(http.content, http.content_length),
                gone=connection.gone,
                door=connection.door,
                peer=connection.peer(),
            )
        except ProaError as e:
            return error_reply(e)


def _check_no_browser(http: BaseRequest, hosts: list[str], door: Door) -> None:
    """Raise Denied for what a page in a browser sends: an Origin, or a name that was bound anew to this address."""
    if "Origin" in http.headers or "Sec-Fetch-Site" in http.headers:
        raise Denied("the engine does not talk to web pages", code="browser-denied")
    host = (hosts or [""])[0]
    name = host.rpartition(":")[0] if re.search(r":[0-9]+$", host) else host
    if door.bare and not (name.endswith("localhost") or re.fullmatch(r"[0-9.]+|\[[0-9a-fA-F:]+\]", name)):
        raise Denied(f"the engine is not called {name[:100]!r}", code="host-denied")


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


async def _continue(http: BaseRequest) -> None:
    """Tell a client that waits for it that its body is welcome."""
    if http.version >= (1, 1) and http.headers.get("Expect", "").lower() == "100-continue":
        writer: AbstractStreamWriter = http.writer
        await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.output_size = 0


def _reply(http: BaseRequest, reply: Reply) -> StreamResponse:
    body, content_type = reply.payload()
    headers = HEADERS | reply.headers
    if content_type:
        headers["Content-Type"] = content_type
    response = Response(status=reply.status, body=body or None, headers=headers)
    if http.headers.get("Upgrade"):
        response.force_close()  # what it sends next would be in another protocol
    return response


class Answered(StreamResponse):
    """Stands for an answer that went out already."""

    async def prepare(self, request: BaseRequest) -> None:
        """Nothing is left to send."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to send."""


async def _stream(http: BaseRequest, connection: Connection, request: Request, stream: Stream) -> StreamResponse:
    headers = HEADERS | {"Content-Type": stream.content_type} | stream.headers
    response = StreamResponse(status=stream.status, headers=headers)
    pump = None
    try:
        await response.prepare(http)  # the head goes out now: clients act on it before the first chunk
        pump = asyncio.ensure_future(_pump(response, stream.chunks))
        if stream.endless:
            connection.when_gone(pump.cancel)
        await asyncio.wait((pump,))
        if not pump.cancelled():
            pump.result()
        elif stream.whole and http.transport is not None:
            http.transport.abort()
            return Answered()
        await response.write_eof()
        return response
    except ConnectionError:
        pass  # the client left
    except Exception as error:  # noqa: BLE001 the fence, once more: the head is out, so the client must see a torn reply
        failed(request, error)
        if http.transport is not None:
            http.transport.abort()
    finally:
        if pump is not None:
            pump.cancel()
        close = getattr(stream.chunks, "aclose", None)
        if close is not None:
            await close()
        if stream.finish is not None:
            await stream.finish()
    return Answered()


async def _pump(response: StreamResponse, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        await response.write(chunk)


async def _hijack(connection: Connection, request: Request, hijack: Hijack) -> StreamResponse:
    if request.upgrading():
        lines = ["HTTP/1.1 101 UPGRADED", f"Content-Type: {hijack.content_type}", "Connection: Upgrade", "Upgrade: tcp"]
    else:
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {hijack.content_type}"]
    lines += [f"{name}: {value}" for name, value in (HEADERS | hijack.headers).items()]
    try:
        descriptor, early = await connection.detach(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
    except Unavailable:
        connection.force_close()
        return Answered()
    spare = socket.socket(fileno=os.dup(descriptor))
    try:
        await hand_over(hijack, descriptor, early)
    except Exception as error:  # noqa: BLE001 the fence; the head is out, so the words go into the stream
        line = error_line(error).encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            spare.send(frame(1, line) if hijack.framed else line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            spare.shutdown(socket.SHUT_RDWR)
    finally:
        spare.close()
        connection.let_go()  # not sooner: it takes this thread 0.1 ms, which the one that hands over would wait for
    return Answered()
