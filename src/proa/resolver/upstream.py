"""Ask name servers: UDP first, TCP when the answer does not fit, the next server when one is silent or unwilling.

forward(query, servers) --UDP, a port and an id nobody can guess--> server 1 --> answer
                                 | 1.5 s of silence, SERVFAIL, REFUSED --> server 2 ... twice round --> None
                                 | TC ------------------------- TCP --> the same server
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

from proa.linux.events import IN, OUT, Loop, Timer
from proa.resolver.message import AD, CD, HEADER, OPT, QR, RD, REFUSED, SERVFAIL, TC, UDP_BYTES, Query

__all__ = ["Forwarder"]

PORT = 53
SILENCE_S = 1.5
ROUNDS = 2
# So many questions may be under way; more are refused, which their askers repeat.
LIMIT = 1024
LARGEST_BYTES = 65535

Done = Callable[[bytes | None], None]


class Forwarder:
    """Questions under way. `forward` calls `done` once, with the answer (its id is 0) or None."""

    def __init__(self, loop: Loop, port: int = PORT) -> None:
        self._loop = loop
        self._port = port
        self._under_way = 0

    def forward(self, query: Query, servers: Sequence[str], done: Done) -> None:
        """Ask the servers in order."""
        if not servers or self._under_way >= LIMIT:
            done(None)
            return
        self._under_way += 1

        def ended(answer: bytes | None) -> None:
            self._under_way -= 1
            done(answer)

        _Question(self._loop, self._port, query, list(servers) * ROUNDS, ended).next()


class _Question:
    """One question on its way from server to server."""

    def __init__(self, loop: Loop, port: int, query: Query, servers: list[str], done: Done) -> None:
        self._loop = loop
        self._port = port
        self._servers = servers
        self._done = done
        self._question = query.question
        self._body = _body(query)
        self._id = b""
        self._socket: socket.socket | None = None
        self._timer: Timer | None = None
        self._refusal: bytes | None = None
        self._server = ""
        self._received = bytearray()

    def next(self) -> None:
        """Ask the next server; without one, give what an unwilling one said, or nothing."""
        self._let_go()
        while self._servers:
            self._server = self._servers.pop(0)
            try:
                self._open(socket.SOCK_DGRAM)
                assert self._socket is not None
                self._socket.send(self._id + self._body)
            except OSError:
                self._let_go()
                continue
            self._loop.watch(self._socket.fileno(), IN, self._heard)
            self._timer = self._loop.later(SILENCE_S, self.next)
            return
        self._end(self._refusal)

    def _open(self, kind: int) -> None:
        family = socket.AF_INET6 if ":" in self._server else socket.AF_INET
        self._socket = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        # Connected: the kernel drops what others send, and says when nobody listens.
        try:
            self._socket.connect((self._server, self._port))
        except BlockingIOError:
            pass
        self._id = os.urandom(2)

    def _heard(self, _: int) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(LARGEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.next()
            return
        if not self._is_answer(data):
            return  # not ours; the right one may still come
        if int.from_bytes(data[2:4], "big") & TC:
            self._ask_again()
        else:
            self._take(data)

    def _is_answer(self, data: bytes) -> bool:
        if len(data) < HEADER.size or data[:2] != self._id:
            return False
        _, flags, questions, _, _, _ = HEADER.unpack_from(data)
        asked = data[HEADER.size : HEADER.size + len(self._question)]
        return bool(flags & QR) and questions == 1 and asked.lower() == self._question.lower()

    def _take(self, data: bytes) -> None:
        answer = b"\0\0" + data[2:]
        if data[3] & 0xF in (SERVFAIL, REFUSED):
            self._refusal = answer
            self.next()
        else:
            self._end(answer)

    def _ask_again(self) -> None:
        """Over TCP; the timer goes on."""
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
        try:
            self._open(socket.SOCK_STREAM)
        except OSError:
            self.next()
            return
        assert self._socket is not None
        self._received = bytearray()
        self._loop.watch(self._socket.fileno(), OUT, self._connected)

    def _connected(self, _: int) -> None:
        assert self._socket is not None
        message = self._id + self._body
        try:
            self._socket.sendall(len(message).to_bytes(2, "big") + message)
        except OSError:
            self.next()
            return
        self._loop.watch(self._socket.fileno(), IN, self._streamed)

    def _streamed(self, _: int) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(LARGEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        size = int.from_bytes(self._received[:2], "big") if len(self._received) >= 2 else LARGEST_BYTES
        if len(self._received) - 2 >= size:
            answer = bytes(self._received[2 : 2 + size])
            if self._is_answer(answer):
                self._take(answer)
            else:
                self.next()
        elif not data:
            self.next()

    def _end(self, answer: bytes | None) -> None:
        self._let_go()
        self._servers = []
        done, self._done = self._done, _nothing
        done(answer)

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None


def _nothing(_: bytes | None) -> None:
    """Who has been answered is not answered again."""


def _body(query: Query) -> bytes:
    """The message behind its id: the asker's flags and question, and an OPT record if it knows what that is."""
    flags = query.flags & (RD | AD | CD)
    if not query.has_opt:
        return HEADER.pack(0, flags, 1, 0, 0, 0)[2:] + query.question
    opt = b"\0" + OPT.to_bytes(2, "big") + UDP_BYTES.to_bytes(2, "big")
    opt += (0x8000 if query.wants_dnssec else 0).to_bytes(4, "big") + b"\0\0"
    return HEADER.pack(0, flags, 1, 0, 0, 1)[2:] + query.question + opt
