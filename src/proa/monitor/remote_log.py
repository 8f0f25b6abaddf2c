"""Logs that go to another program: the systemd journal, and syslog.

journald: datagrams of the native protocol (systemd, "Native Journal Protocol"); one field a line, `NAME\\n`, length and
bytes for what has a newline or is no text. syslog: RFC 3164 or 5424 to a unix socket, by UDP or TCP.

A receiver that does not take a message within a second is left alone for a while; what could not be delivered is
counted, and the count is the first thing it hears.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

from proa.errors import Invalid, Unavailable
from proa.monitor.logs import rfc3339

__all__ = ["JOURNAL_SOCKET", "RemoteLog", "connect", "journal_message", "syslog_message"]

JOURNAL_SOCKET = "unixgram:///run/systemd/journal/socket"
INFO, ERROR = 6, 3

_SEND_TIMEOUT_S = 1.0
_PAUSE_S = 5.0
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# (stream, text without its newline, whether more of the line follows) -> one message
Encoder = Callable[[str, bytes, bool], bytes]


def connect(address: str) -> socket.socket:
    """A connected socket of `unix://`, `unixgram://`, `udp://` or `tcp://` with a numeric host. Raises OSError."""
    scheme, _, place = address.partition("://")
    if scheme in ("unix", "unixgram"):
        kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM) if scheme == "unix" else (socket.SOCK_DGRAM,)
        error = OSError()
        for kind in kinds:
            sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
            try:
                sock.settimeout(_SEND_TIMEOUT_S)
                sock.connect(place)
            except OSError as failure:
                sock.close()
                error = failure
                continue
            return sock
        raise error
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(_SEND_TIMEOUT_S)
        sock.connect((host, int(port)))
    except OSError:
        sock.close()
        raise
    return sock


class RemoteLog:
    """Sends each line to an address. Raises Unavailable when nobody is there at the start."""

    def __init__(self, address: str, encode: Encoder, *, must_answer: bool = False) -> None:
        self._address = address
        self._encode = encode
        self._socket: socket.socket | None = None
        self._silent_until = 0.0
        self._dropped = 0
        if must_answer:
            try:
                self._socket = connect(address)
            except (OSError, ValueError) as error:
                raise Unavailable(
                    f"failed to initialize logging driver: cannot reach {address}: {error}",
                    code="log-receiver",
                    subject=address,
                    hint="start the receiver, or use another --log-driver",
                ) from None

    def lines(self, stream: str, text: bytes) -> None:
        """Send whole lines, one message each."""
        for line in text[:-1].split(b"\n"):
            self._send(stream, line, False)

    def piece(self, stream: str, text: bytes) -> None:
        """Send a part of a line."""
        self._send(stream, text, True)

    def settle(self) -> None:
        """Nothing is put off."""

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, stream: str, text: bytes, partial: bool) -> None:
        if self._silent_until:
            if time.monotonic() < self._silent_until:
                self._dropped += 1
                return
            self._silent_until = 0.0
        try:
            if self._socket is None:
                self._socket = connect(self._address)
            if self._dropped:
                note = b"proa: %d messages were dropped, the receiver did not take them" % self._dropped
                self._deliver(self._socket, self._encode("stderr", note, False))
                self._dropped = 0
            self._deliver(self._socket, self._encode(stream, text, partial))
        except (OSError, ValueError):
            self.close()
            self._dropped += 1
            self._silent_until = time.monotonic() + _PAUSE_S

    @staticmethod
    def _deliver(sock: socket.socket, message: bytes) -> None:
        if sock.type & socket.SOCK_STREAM:
            sock.sendall(message if message.endswith(b"\n") else message + b"\n")
        else:
            sock.send(message)


def journal_message(fields: Mapping[str, str]) -> Encoder:
    """Messages for the journal with these fields besides the text."""
    fixed = b"".join(_field(name, value.encode("utf-8", "surrogateescape")) for name, value in fields.items())

    def encode(stream: str, text: bytes, partial: bool) -> bytes:
        priority = b"PRIORITY=%d\n" % (ERROR if stream == "stderr" else INFO)
        stamp = f"SYSLOG_TIMESTAMP={rfc3339(time.time_ns())}\n".encode()
        part = b"CONTAINER_PARTIAL_MESSAGE=true\n" if partial else b""
        return fixed + priority + stamp + part + _field("MESSAGE", text)

    return encode


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value or b"\0" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def syslog_message(layout: str, facility: int, tag: str) -> Encoder:
    """Messages in a layout: "unix" (as for /dev/log), "rfc3164", "rfc5424", "rfc5424micro". Raises Invalid."""
    if layout not in ("unix", "rfc3164", "rfc5424", "rfc5424micro"):
        raise Invalid(f"Invalid syslog format {layout!r}", code="log-option")
    host, process = os.uname().nodename, os.getpid()

    def encode(stream: str, text: bytes, _partial: bool) -> bytes:
        priority = facility << 3 | (ERROR if stream == "stderr" else INFO)
        now = time.time_ns()
        if layout.startswith("rfc5424"):
            stamp = rfc3339(now)
            stamp = stamp[:-4] + "Z" if layout == "rfc5424micro" else stamp[:19] + "Z"
            head = f"<{priority}>1 {stamp} {host} {tag} {process} {tag} - "
        else:
            t = time.localtime(now // 1_000_000_000)
            stamp = f"{_MONTHS[t[1] - 1]} {t[2]:2d} {t[3]:02d}:{t[4]:02d}:{t[5]:02d}"
            place = f"{host} " if layout == "rfc3164" else ""
            head = f"<{priority}>{stamp} {place}{tag}[{process}]: "
        return head.encode("utf-8", "surrogateescape") + text

    return encode
