"""The engine on TCP: with mutual TLS, or bare on loopback where somebody asked for exactly that.

A connection to a container's monitor passes as a descriptor, and TLS has none that carries plain bytes. So TLS ends
in a relay: the server sees one end of a socket pair, and a client's close_notify becomes a half-close of it (which
asyncio's own TLS cannot express), so that the end of a container's input arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from typing import TYPE_CHECKING

from proa.api.accept import Acceptor
from proa.api.sockets.doors import Door
from proa.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from proa.api.server import HttpServer

HANDSHAKE_SECONDS = 10.0
PIECE = 64 << 10
MAX_CLIENTS = 512
#: Who has not shown a certificate yet is a stranger. With more of them at once than this, the one that has waited
#: longest goes: whoever opens connections and says nothing keeps nobody out, as an honest handshake takes milliseconds.
MAX_STRANGERS = 64


_PLAIN_HTTP = re.compile(rb"[A-Z]{3,8} /")
#: What Go's server says then, so what clients know to show: whoever forgot TLS learns it.
_NOT_PLAIN = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"Client sent an HTTP request to an HTTPS server.\n"
)


class TcpListener:
    """What to listen on. Raises Invalid for what would let anybody in."""

    def __init__(self, address: str, *, ca: str = "", certificate: str = "", key: str = "", bare: bool = False) -> None:
        host, _, port = address.rpartition(":")
        try:
            ip = ipaddress.ip_address(host.strip("[]"))
            self.address = (str(ip), int(port))
        except ValueError:
            raise Invalid(f"cannot listen at {address!r}: not IP:PORT", code="tcp-address") from None
        self.context: ssl.SSLContext | None = None
        if bare:
            if not ip.is_loopback or ca or certificate or key:
                raise Invalid(f"{address} without TLS: only on loopback, and without certificates", code="tcp-bare")
            return
        if not (ca and certificate and key):
            raise Invalid(
                f"cannot listen at {address}: TCP needs mutual TLS",
                code="tcp-without-tls",
                hint="give tls-ca, tls-cert and tls-key; whoever reaches a port without TLS is root here",
            )
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            self.context.load_cert_chain(certificate, key)
            self.context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            raise Invalid(f"cannot use the TLS files: {error}", code="tls-files") from None

    def bind(self) -> socket.socket:
        """The listening socket. Raises Unavailable."""
        listener = socket.socket(socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self.address)
            listener.listen(128)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise Unavailable(f"cannot listen at {self.address}: {error.strerror}", code="tcp-address") from None
        return listener


class TcpDoor:
    """A TCP listener that is served, until `close`."""

    def __init__(self, server: HttpServer, wanted: TcpListener) -> None:
        limit = min(MAX_CLIENTS, server.max_connections // 2)  # the engine's own socket is to stay reachable
        self.door = Door("tcp", f"tcp://{wanted.address[0]}:{wanted.address[1]}", limit=limit)
        self.door.bare = wanted.context is None
        self.server = server
        self.context = wanted.context
        self._acceptor: Acceptor | asyncio.Server | None = None
        self._relays: set[_Outer] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.strangers: dict[_Outer, None] = {}  # the first has waited longest

    async def open(self, listener: socket.socket) -> None:
        """Serve from now on."""
        if self.context is None:
            self._acceptor = Acceptor(self.server, listener, self.door)
            self._acceptor.start()
        else:
            self._acceptor = await asyncio.get_running_loop().create_server(lambda: _Outer(self), sock=listener)

    def let_in(self, relay: _Outer) -> bool:
        """Whether one who came is heard; who has waited longest may have to go for that."""
        if self.full:
            return False
        self._relays.add(relay)
        self._quiet.clear()
        if len(self.strangers) >= MAX_STRANGERS:
            next(iter(self.strangers)).abort()
        self.strangers[relay] = None
        return True

    @property
    def full(self) -> bool:
        """Whether there is no place for one more client."""
        return self.door.full or self.server.connected >= self.server.max_connections

    async def close(self) -> None:
        """Listen no more; who has shown no certificate goes."""
        closing = self._acceptor.close() if self._acceptor is not None else None
        if closing is not None:
            await closing
        for stranger in list(self.strangers):
            stranger.abort()

    async def ended(self, seconds: float) -> None:
        """Wait until what the server said last is on its way, when it has said all."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._quiet.wait()
        for relay in list(self._relays):
            relay.abort()

    def left(self, relay: _Outer) -> None:
        """One of them is no more."""
        self._relays.discard(relay)
        if not self._relays:
            self._quiet.set()


class _Outer(asyncio.Protocol):
    """The client's side: TLS records."""

    def __init__(self, place: TcpDoor) -> None:
        assert place.context is not None
        self._place = place
        self._server = place.server
        self._door = place.door
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = place.context.wrap_bio(self._arrived, self._leaving, server_side=True)
        self._loop = asyncio.get_running_loop()
        self._heard = False
        self._shaken = False
        self._patience: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self.inner: asyncio.Transport | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._place.let_in(self):
            self._patience = self._loop.call_later(HANDSHAKE_SECONDS, self.abort)
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        if not self._heard and _PLAIN_HTTP.match(data) and self.transport is not None:
            self.transport.write(_NOT_PLAIN)
            self._end()
            return
        self._heard = True
        self._arrived.write(data)
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
                self._known()
                if self._place.full:
                    self.abort()
                    return
                self._door.connected += 1
                self._server.joining += 1
                self._opening = self._loop.create_task(self._open())
                assert self.transport is not None
                self.transport.pause_reading()
            else:
                self.forward()
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLError, OSError):
            self._flush()
            self._end()
            return
        self._flush()

    async def _open(self) -> None:
        try:
            near, far = socket.socketpair()
            near.setblocking(False)
            far.setblocking(False)
            await self._loop.connect_accepted_socket(lambda: self._server.connection(self._door), near)
        except OSError:  # no descriptors are left
            self._door.connected -= 1
            self._server.joining -= 1
            self._end()
            return
        await self._loop.create_connection(lambda: _Inner(self), sock=far)
        if self.transport is None or self.inner is None or self.transport.is_closing():
            if self.inner is not None:
                self.inner.close()
            self._end()
            return
        self.forward()
        self.transport.resume_reading()

    def forward(self) -> None:
        """Give the server what was decrypted; a close_notify ends what it is sent, not what it sends."""
        if self.inner is None:
            return
        try:
            while data := self._tls.read(PIECE):
                self.inner.write(data)
        except ssl.SSLWantReadError:
            return
        except ssl.SSLZeroReturnError:
            pass
        if self.inner.can_write_eof() and not self.inner.is_closing():
            self.inner.write_eof()

    def send(self, data: bytes) -> None:
        """Encrypt what the server says."""
        self._tls.write(data)
        self._flush()

    def finish(self) -> None:
        """The server has said all: a close_notify, then the end."""
        try:
            self._tls.unwrap()
        except (ssl.SSLError, OSError):
            pass
        self._flush()
        self._end()

    def _flush(self) -> None:
        if self._leaving.pending and self.transport is not None:
            self.transport.write(self._leaving.read())

    def abort(self) -> None:
        """End it at once."""
        self._known()
        if self.transport is not None:
            self.transport.abort()

    def _known(self) -> None:
        """It is no stranger any more."""
        self._place.strangers.pop(self, None)
        if self._patience is not None:
            self._patience.cancel()

    def _end(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def pause_writing(self) -> None:
        if self.inner is not None:
            self.inner.pause_reading()

    def resume_writing(self) -> None:
        if self.inner is not None:
            self.inner.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio passes it
        self._known()
        self._place.left(self)
        if self.inner is not None:
            self.inner.close()


class _Inner(asyncio.Protocol):
    """The server's side: plain bytes."""

    def __init__(self, outer: _Outer) -> None:
        self._outer = outer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._outer.inner = transport

    def data_received(self, data: bytes) -> None:
        self._outer.send(data)

    def pause_writing(self) -> None:
        assert self._outer.transport is not None
        self._outer.transport.pause_reading()

    def resume_writing(self) -> None:
        assert self._outer.transport is not None
        self._outer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio passes it
        self._outer.finish()
