"""A blocking connection to the engine: one socket, one request at a time, then perhaps a raw stream.

The SDK's synchronous transport and the command line both stand on it. Only `_socket` is imported: the socket module
costs 10 ms, and proa.errors 0.3 that can pass while the engine works already.
"""

from __future__ import annotations

import _socket
from sys import byteorder

from proa.client.http import Head, ReplyReader, request_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from proa.client.endpoint import Endpoint
    from proa.client.tls_relay import Relay
    from proa.errors import Unavailable

RECEIVE_BYTES = 256 << 10
HEAD_BYTES = 16 << 10
MAX_BODY_BYTES = 256 << 20


class Connection:
    """One connection; not for several threads at once."""

    def __init__(self, socket: _socket.socket, host: str = "proa", relay: Relay | None = None) -> None:
        self._socket = socket
        self._host = host
        self._relay = relay
        self._reader = ReplyReader()
        self._reader.done = True
        self.request: tuple[str, str, bytes, Iterable[tuple[str, str]], bool] | None = None

    @classmethod
    def open(cls, endpoint: Endpoint, *, start: bool = True) -> Connection:
        """Connect, starting the engine first where that is ours to do.

        Raises Unavailable when nobody listens there and `start` is false or the engine is not ours to start.
        """
        try:
            return cls._dial(endpoint)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if not (start and endpoint.starts):
                raise unreachable(endpoint, error) from None
        except OSError as error:
            raise unreachable(endpoint, error) from None
        from proa.client.autostart import start_engine

        return start_engine(endpoint, lambda: cls._dial(endpoint))

    @classmethod
    def _dial(cls, endpoint: Endpoint) -> Connection:
        relay = dial_tls(endpoint)
        return cls(relay.socket if relay else _connect(endpoint), endpoint.authority, relay)

    @property
    def _local(self) -> bool:
        """Whether the engine's own socket is at the other end."""
        return self._relay is None and self._socket.family == _socket.AF_UNIX

    def peer_pid(self) -> int:
        """The process that serves this connection (unix(7), SO_PEERCRED); 0 when it is not one of this machine's."""
        if not self._local:
            return 0
        return int.from_bytes(self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)[:4], byteorder)

    def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        headers: Iterable[tuple[str, str]] = (),
        upgrade: bool = False,
    ) -> None:
        """Send a request with its whole body.

        Raises Unavailable when the engine went away, Invalid for control characters in the request's head.
        """
        try:
            head = request_head(method, target, length=len(body), headers=headers, upgrade=upgrade, host=self._host)
        except ValueError as error:
            from proa.errors import Invalid

            raise Invalid(str(error)) from None
        self._reader = ReplyReader(method)
        self.request = (method, target, body, headers, upgrade)
        self._send(head + body)

    def send_stream(
        self,
        method: str,
        target: str,
        pieces: Iterable[bytes],
        *,
        headers: Iterable[tuple[str, str]] = (),
        content_type: str = "application/x-tar",
    ) -> None:
        """Send a request whose body comes in pieces, chunked."""
        self._reader = ReplyReader(method)
        self.request = None  # its pieces are gone: it cannot be sent again
        self._send(
            request_head(method, target, length=None, headers=headers, content_type=content_type, host=self._host)
        )
        try:
            for piece in pieces:
                if piece:
                    self._socket.sendall(b"%x\r\n" % len(piece))
                    self._socket.sendall(piece)
                    self._socket.sendall(b"\r\n")
            self._socket.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the engine answered before it read everything: its reply says why

    def head(self) -> Head:
        """Wait for the reply's head.

        Raises Unavailable when the engine closed the connection instead.
        """
        reader = self._reader
        while reader.head is None:
            reader.feed(self._receive())
        return reader.head

    def read(self) -> bytes:
        """The next decoded bytes of the body, empty at its end."""
        reader = self._reader
        while True:
            data = reader.take()
            if data or reader.done:
                return data
            reader.feed(self._receive(in_body=True))

    def body(self, limit: int = MAX_BODY_BYTES) -> bytes:
        """The rest of the body.

        Raises Exhausted when it is longer than `limit` bytes.
        """
        pieces = []
        size = 0
        while data := self.read():
            size += len(data)
            if size > limit:
                from proa.errors import Exhausted

                raise Exhausted(f"the engine's reply is longer than {limit} bytes", code="reply-too-long")
            pieces.append(data)
        return b"".join(pieces)

    def take_in(self) -> bool:
        """Take in what has arrived of the reply; whether it is complete.

        Raises Unavailable or Corrupt when the engine went away in the middle of it.
        """
        self._reader.feed(self._receive(in_body=self._reader.head is not None))
        return self._reader.done

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent."""
        return self._reader.reusable

    @property
    def upgraded(self) -> bool:
        """Whether the connection carries a raw stream."""
        return self._reader.upgraded

    def raw_read(self) -> bytes:
        """The next bytes of the raw stream after an upgrade, empty at its end."""
        rest = self._reader.rest
        if rest:
            self._reader.rest = b""
            return rest
        if self._reader._left == -1 and not self._reader.upgraded:  # a server that streams without upgrading
            return self.read()
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except ConnectionResetError:
            return b""

    def early(self) -> bytes:
        """Raw bytes that came along with the reply's head."""
        rest, self._reader.rest = self._reader.rest, b""
        return rest

    def set_blocking(self, blocking: bool) -> None:
        """Whether `receive_some` and `send_some` wait."""
        self._socket.setblocking(blocking)

    def receive_some(self) -> bytes | None:
        """Raw bytes that are there, None when there are none yet, empty at the end."""
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""

    def send_some(self, data: bytes) -> int:
        """Send what the socket takes now; a stream the other side has closed swallows everything."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError):
            return len(data)

    def half_close(self) -> None:
        """Say that nothing more will be sent: end of the container's input."""
        try:
            self._socket.shutdown(_socket.SHUT_WR)
        except OSError:
            pass

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._gone(error, unread=True) from None

    def _gone(self, error: OSError, *, unread: bool) -> Unavailable:
        """`unread`: whether an engine of this machine has certainly not acted on the request: it never read all of it.

        A unix socket tells: it is reset when its other end is closed with bytes of ours unread.
        """
        told = unread and isinstance(error, (ConnectionResetError, BrokenPipeError))
        if self._relay is not None and self._relay.failure:
            return self._relay.refusal()
        from proa.errors import Unavailable

        return Unavailable(f"the engine went away: {error.strerror}", code="engine-gone", unread=told and self._local)

    def _receive(self, *, in_body: bool = False) -> bytes:
        try:
            # A buffer of the large size would be mapped and unmapped for a head.
            data = self._socket.recv(RECEIVE_BYTES if in_body else HEAD_BYTES)
        except OSError as error:
            raise self._gone(error, unread=not in_body and self._reader.head is None) from None
        if not data and self._relay is not None and self._relay.failure:
            raise self._relay.refusal()
        if not data and not in_body and self._reader.head is None:
            from proa.errors import Unavailable

            raise Unavailable("the engine closed the connection without an answer", code="engine-gone")
        return data


def unreachable(endpoint: Endpoint, error: OSError) -> Unavailable:
    """What to tell when nobody answers at the address."""
    from proa.errors import Unavailable

    reason = error.strerror or str(error)
    hint = "start one with `proa system service`, or unset PROA_HOST and DOCKER_HOST to use your own"
    if isinstance(error, PermissionError):
        hint = "run as root or join the socket's group"
    elif endpoint.starts:
        hint = "start it with any command such as `proa ps`"
    return Unavailable(
        f"cannot connect to the engine at {endpoint}: {reason}",
        code="engine-unreachable",
        subject=str(endpoint),
        hint=hint,
    )


def dial_tls(endpoint: Endpoint) -> Relay | None:
    """TLS with the engine, None where it is not spoken. Raises OSError, and as `proa.client.tls_relay.secure` does."""
    if endpoint.tls is None:
        return None
    from proa.client.tls_relay import secure

    return secure(_connect(endpoint), endpoint.host, endpoint.tls)


def _connect(endpoint: Endpoint) -> _socket.socket:
    if endpoint.path:
        raw = endpoint.path.encode("utf-8", "surrogateescape")
        if len(raw) > 107:
            from proa.errors import Invalid

            raise Invalid(
                f"the socket path {endpoint.path} is {len(raw)} bytes long; the kernel allows 107",
                code="socket-path-too-long",
                hint="set PROA_RUN to a shorter directory",
            )
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            sock.connect(raw)
        except BaseException:
            sock.close()
            raise
        return sock
    last: OSError = OSError(f"no address for {endpoint.host}")
    for family, kind, protocol, _, address in _socket.getaddrinfo(endpoint.host, endpoint.port, 0, _socket.SOCK_STREAM):
        sock = _socket.socket(family, kind, protocol)
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            last = error
        else:
            return sock
    raise last
