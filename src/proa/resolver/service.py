"""Serve containers: each has a UDP and a TCP socket in its network namespace; the answers come from one place.

query --> a name of a container on one of its networks?  --> A, AAAA or nothing of that kind
      --> the reverse of such an address?                --> PTR
      --> does it have a network that leads out?         --> cache, else its name servers, else the host's
      --> otherwise                                      --> no such name: nothing of an internal network gets out
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial

import msgspec

from proa.linux.events import IN, Loop
from proa.resolver.cache import Cache
from proa.resolver.host_servers import HostServers
from proa.resolver.message import (
    AAAA,
    ANY,
    NOERROR,
    NXDOMAIN,
    PTR,
    SERVFAIL,
    A,
    Query,
    Record,
    domain_name,
    parse_query,
    reply_to,
    truncated_reply,
)
from proa.resolver.names import Names, address_of_reverse
from proa.resolver.upstream import Forwarder

__all__ = ["Client", "Service"]

# Names of containers come and go, so nobody shall keep what we say for long.
TTL_S = 10
LARGEST_BYTES = 4096
BURST = 64
CONNECTIONS = 64
IDLE_S = 10.0

Answer = Callable[[bytes], None]


class Client(msgspec.Struct):
    """One container: its networks in the order they are asked, whether one leads out, its own name servers if any."""

    id: str
    networks: list[str]
    forward: bool = True
    servers: list[str] = []


class _Served:
    """A client with its sockets."""

    def __init__(self, client: Client, udp: socket.socket, tcp: socket.socket) -> None:
        self.client = client
        self.udp = udp
        self.tcp = tcp
        self.connections: set[_Connection] = set()


class Service:
    """The clients, and the answers to their queries."""

    def __init__(self, loop: Loop, names: Names, *, port: int = 53) -> None:
        self._loop = loop
        self._names = names
        self._cache = Cache()
        self._host = HostServers()
        self._forwarder = Forwarder(loop, port)
        self._waiting: dict[tuple[object, ...], list[Callable[[bytes | None], None]]] = {}
        self._served: dict[str, _Served] = {}

    def clients(self) -> list[str]:
        """Ids of those that are served."""
        return list(self._served)

    def serve(self, client: Client, udp_fd: int = -1, tcp_fd: int = -1) -> None:
        """Serve a container at these sockets, which are ours from now on; without them, change how it is served."""
        if udp_fd < 0:
            if client.id in self._served:
                self._served[client.id].client = client
            return
        self.drop(client.id)
        served = _Served(client, socket.socket(fileno=udp_fd), socket.socket(fileno=tcp_fd))
        for each in (served.udp, served.tcp):
            each.setblocking(False)
        self._served[client.id] = served
        self._loop.watch(served.udp.fileno(), IN, partial(self._datagrams, served))
        self._loop.watch(served.tcp.fileno(), IN, partial(self._connect, served))

    def drop(self, id: str) -> None:  # noqa: A002
        """Serve it no longer; one that was not served is fine."""
        served = self._served.pop(id, None)
        if served is None:
            return
        for connection in list(served.connections):
            connection.close()
        for each in (served.udp, served.tcp):
            self._loop.forget(each.fileno())
            each.close()

    def _datagrams(self, served: _Served, _: int) -> None:
        for _ in range(BURST):
            try:
                data, place = served.udp.recvfrom(LARGEST_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # an earlier answer met a closed port
            self.handle(served.client, data, partial(_send, served.udp, place), udp=True)

    def _connect(self, served: _Served, _: int) -> None:
        try:
            connected, _address = served.tcp.accept()
        except OSError:
            return
        if len(served.connections) >= CONNECTIONS:
            connected.close()
            return
        connected.setblocking(False)
        _Connection(self._loop, self, served, connected)

    def handle(self, client: Client, data: bytes, answer: Answer, *, udp: bool) -> None:
        """Answer one message, now or later; one that makes no sense is dropped."""
        try:
            query = parse_query(data)
        except ValueError:
            return

        def finish(reply: bytes) -> None:
            if udp and len(reply) > min(query.udp_bytes, LARGEST_BYTES):
                reply = truncated_reply(query)
            answer(reply)

        own = self._own(client, query)
        if own is not None:
            finish(own)
        elif not client.forward:
            finish(reply_to(query, NXDOMAIN))
        else:
            self._forward(client, query, finish)

    def _own(self, client: Client, query: Query) -> bytes | None:
        if query.type == PTR:
            address = address_of_reverse(query.name)
            name = self._names.reverse(client.networks, address) if address is not None else None
            return None if name is None else reply_to(query, NOERROR, [Record(PTR, TTL_S, domain_name(name))])
        addresses = self._names.lookup(client.networks, query.name, 6 if query.type == AAAA else 4)
        if addresses is None:
            return None
        records = [
            Record(kind, TTL_S, address.packed)
            for address in addresses
            if query.type in (kind := A if address.version == 4 else AAAA, ANY)
        ]
        return reply_to(query, NOERROR, records)

    def _forward(self, client: Client, query: Query, finish: Answer) -> None:
        servers = tuple(client.servers or self._host.servers())
        key = (query.question.lower(), query.has_opt, query.wants_dnssec, query.flags & 0x0110, servers)
        kept = self._cache.get(key, time.monotonic())

        def done(found: bytes | bytearray | None) -> None:
            if found is None:
                finish(reply_to(query, SERVFAIL))
                return
            # The question in the asker's spelling: some vary its case and compare (draft-vixie-dnsext-dns0x20).
            size = 12 + len(query.question)
            finish(query.id.to_bytes(2, "big") + bytes(found[2:12]) + query.question + bytes(found[size:]))

        if kept is not None:
            done(kept)
            return
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(done)
            return
        self._waiting[key] = [done]
        self._forwarder.forward(query, servers, partial(self._answered, key))

    def _answered(self, key: tuple[object, ...], found: bytes | None) -> None:
        if found is not None:
            try:
                self._cache.put(key, found, time.monotonic())
            except ValueError:
                found = None  # a malformed answer is none
        for done in self._waiting.pop(key, ()):
            done(found)


def _send(udp: socket.socket, place: object, reply: bytes) -> None:
    try:
        udp.sendto(reply, place)  # type: ignore[call-overload]
    except OSError:
        pass  # gone, or its queue is full: it asks again


class _Connection:
    """A client's TCP connection: messages with their length before them (RFC 1035 4.2.2)."""

    def __init__(self, loop: Loop, service: Service, served: _Served, connected: socket.socket) -> None:
        self._loop = loop
        self._service = service
        self._served = served
        self._socket = connected
        self._open = True
        self._received = bytearray()
        served.connections.add(self)
        loop.watch(connected.fileno(), IN, self._readable)
        self._timer = loop.later(IDLE_S, self.close)

    def _readable(self, _: int) -> None:
        try:
            data = self._socket.recv(LARGEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._received += data
        while self._open and len(self._received) >= 2:
            size = int.from_bytes(self._received[:2], "big")
            if size > LARGEST_BYTES:
                self.close()
                return
            if len(self._received) < 2 + size:
                return
            message = bytes(self._received[2 : 2 + size])
            del self._received[: 2 + size]
            self._timer.cancel()
            self._timer = self._loop.later(IDLE_S, self.close)
            self._service.handle(self._served.client, message, self._answer, udp=False)

    def _answer(self, reply: bytes) -> None:
        if not self._open:
            return
        try:
            # One that does not read its answers fills its window of some hundred answers and is left.
            sent = self._socket.send(len(reply).to_bytes(2, "big") + reply)
        except OSError:
            sent = 0
        if sent != len(reply) + 2:
            self.close()

    def close(self) -> None:
        """End it."""
        if self._open:
            self._open = False
            self._timer.cancel()
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._served.connections.discard(self)
