"""TLS that ends in a relay: callers get one end of a socket pair, and a thread carries it over TLS.

So a connection is a plain socket to everybody else: it can be polled, read bit by bit, and closed by halves, which
becomes a close_notify; the ssl module's own sockets can do none of that.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from typing import TYPE_CHECKING

from proa.errors import Invalid, Unavailable

if TYPE_CHECKING:
    import _socket

    from proa.client.tls import Tls

__all__ = ["Relay", "secure"]

HANDSHAKE_SECONDS = 30.0
PIECE = 64 << 10
LAST_WORDS_SECONDS = 5.0


def secure(connected: _socket.socket, host: str, settings: Tls) -> Relay:
    """Speak TLS on a connected socket, which belongs to the relay from now on.

    Raises Invalid for files that cannot be used, Unavailable when the handshake fails.
    """
    try:
        tls = _context(settings)
        wire = socket.socket(fileno=connected.detach())
    except BaseException:
        connected.close()
        raise
    try:
        return Relay(wire, host, tls)
    except BaseException:
        wire.close()
        raise


def _context(settings: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    file = settings.ca
    try:
        if settings.verify and file:
            context.load_verify_locations(file)
        elif settings.verify:
            context.load_default_certs()
        file = settings.certificate or settings.key
        if file:
            context.load_cert_chain(settings.certificate, settings.key or None)
    except (OSError, ssl.SSLError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Invalid(
            f"cannot use the TLS file {file}: {why}",
            code="tls-files",
            subject=file,
            hint="DOCKER_CERT_PATH, or --tlscacert, --tlscert and --tlskey, name PEM files",
        ) from None
    return context


class Relay:
    """One connection. `socket` is the callers' end; `failure` says why it ended, once it ended by a failure."""

    def __init__(self, wire: socket.socket, host: str, context: ssl.SSLContext) -> None:
        self._wire = wire
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = host if context.check_hostname else None
        self._tls = context.wrap_bio(self._arrived, self._leaving, server_hostname=name)
        self.failure = ""
        self._host = host
        self._shake_hands(host)
        self.socket, self._near = socket.socketpair()
        self._near.setblocking(False)
        wire.setblocking(False)
        threading.Thread(target=self._run, name="tls", daemon=True).start()

    def refusal(self) -> Unavailable:
        """What to raise when it ended by a failure; a certificate is refused after the handshake (TLS 1.3)."""
        return Unavailable(
            f"the engine at {self._host} broke TLS off: {self.failure}",
            code="tls-broken",
            subject=self._host,
            hint="it lets in who shows a certificate that its --tls-ca signed" if "certificate" in self.failure else "",
        )

    def _shake_hands(self, host: str) -> None:
        self._wire.settimeout(HANDSHAKE_SECONDS)
        try:
            while True:
                try:
                    self._tls.do_handshake()
                except ssl.SSLWantReadError:
                    self._wire.sendall(self._leaving.read())
                    data = self._wire.recv(PIECE)
                    if not data:
                        raise OSError(0, "it closed the connection") from None
                    self._arrived.write(data)
                else:
                    self._wire.sendall(self._leaving.read())
                    return
        except ssl.SSLCertVerificationError as error:
            raise Unavailable(
                f"the engine at {host} is not trusted: {error.verify_message}",
                code="tls-untrusted",
                subject=host,
                hint="its certificate must be for that host, and signed by the authority in ca.pem",
            ) from None
        except (ssl.SSLError, OSError) as error:
            raise Unavailable(
                f"TLS with the engine at {host} failed: {_why(error)}",
                code="tls-failed",
                subject=host,
                hint="does it speak TLS there? DOCKER_TLS_VERIFY and --tlsverify say that it does",
            ) from None

    def _run(self) -> None:
        try:
            self._carry()
        except (ssl.SSLError, OSError) as error:
            self.failure = _why(error)
        finally:
            self._wire.close()
            self._near.close()

    def _carry(self) -> None:
        """Both directions until the engine has ended its own, or nobody here listens any more."""
        poller = select.poll()
        out = plain = b""  # for the engine; for the callers
        input_open = output_open = True
        while output_open or plain:
            # Hang-ups are reported whatever is asked for: the callers' end was closed, not only by half.
            near = (select.POLLIN if input_open and not out else 0) | (select.POLLOUT if plain else 0)
            poller.register(self._near, near)
            far = (select.POLLIN if output_open and not plain else 0) | (select.POLLOUT if out else 0)
            poller.register(self._wire, far)
            for descriptor, event in poller.poll():
                if descriptor == self._near.fileno():
                    if plain and event & select.POLLOUT:
                        plain = plain[self._near.send(plain) :]
                    if event & select.POLLHUP and not event & select.POLLIN:
                        self._last_words(out, input_open=input_open)
                        return
                    if event & select.POLLIN and input_open and not out:
                        input_open = self._take_input()
                        out += self._leaving.read()
                else:
                    if out and event & select.POLLOUT:
                        try:
                            out = out[self._wire.send(out) :]
                        except OSError:  # nobody takes it any more; what was said before that is still to be read
                            out, input_open = b"", False
                            self._near.shutdown(socket.SHUT_RD)
                    if event & ~select.POLLOUT and output_open and not plain:
                        plain, output_open = self._take_output()
                        out += self._leaving.read()

    def _last_words(self, out: bytes, *, input_open: bool) -> None:
        """The callers' end was closed: send what they had said."""
        while input_open:
            input_open = self._take_input()
        self._wire.settimeout(LAST_WORDS_SECONDS)
        self._wire.sendall(out + self._leaving.read())

    def _take_input(self) -> bool:
        """Encrypt what the callers said; False at its end."""
        if data := self._near.recv(PIECE):
            self._tls.write(data)
            return True
        try:
            self._tls.unwrap()  # says close_notify; the answer, and all that comes before it, is read as ever
        except ssl.SSLWantReadError:
            pass
        return False

    def _take_output(self) -> tuple[bytes, bool]:
        """What the engine says, and whether more may come."""
        data = self._wire.recv(PIECE)
        if not data:
            return b"", False
        self._arrived.write(data)
        pieces = []
        try:
            while piece := self._tls.read(PIECE):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            return b"".join(pieces), True
        except ssl.SSLZeroReturnError:
            pass
        return b"".join(pieces), False


def _why(error: OSError) -> str:
    """In words: the ssl module packs the alert's name into a longer text."""
    reason = getattr(error, "reason", None)
    return str(reason).lower().replace("_", " ") if reason else error.strerror or str(error)
