"""The service with real sockets on loopback, and name servers that are made to misbehave."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from proa.linux.events import Loop
from proa.resolver.message import AAAA, NOERROR, NXDOMAIN, PTR, REFUSED, SERVFAIL, TC, A, domain_name
from proa.resolver.names import Names
from proa.resolver.service import Client, Service

PORT = 10053
# Of one process only: tests of this file may run beside each other, and all name servers have one port.
_PID = os.getpid()
SERVERS = tuple(f"127.{64 + (_PID >> 14 & 63)}.{_PID >> 6 & 255}.{_PID % 64 * 2 + last}" for last in (1, 2))


def ask_bytes(name: str, kind: int = A, number: int = 99) -> bytes:
    head = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0)
    return head + domain_name(name) + struct.pack(">HH", kind, 1)


def answer(
    data: bytes, address: bytes = bytes([192, 0, 2, 1]), *, code: int = 0, ttl: int = 60, count: int = 1
) -> bytes:
    head = data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, count, 0, 0)
    return head + data[12:] + (b"\xc0\x0c" + struct.pack(">HHIH", A, 1, 60, 4) + address) * count


class NameServer:
    """A name server on a loopback address; `behave` makes the answers of a query, over UDP and over TCP."""

    def __init__(self, address: str, behave: Callable[[bytes, bool], list[bytes]]) -> None:
        self.heard: list[bytes] = []
        self._behave = behave
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._tcp = socket.socket()
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for each in (self._udp, self._tcp):
            each.bind((address, PORT))
        self._tcp.listen()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._datagrams, self._connections)]
        for thread in self._threads:
            thread.start()

    def _datagrams(self) -> None:
        while True:
            try:
                data, place = self._udp.recvfrom(4096)
            except OSError:
                return
            if not data:
                return
            self.heard.append(data)
            for each in self._behave(data, False):
                self._udp.sendto(each, place)

    def _connections(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection:
                data = connection.recv(4096)[2:]
                self.heard.append(data)
                for each in self._behave(data, True):
                    connection.sendall(len(each).to_bytes(2, "big") + each)

    def close(self) -> None:
        for each in (self._udp, self._tcp):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        for thread in self._threads:
            thread.join(2)


class Resolver:
    """A service in a thread, with one client."""

    def __init__(self, **client: object) -> None:
        self.loop = Loop("resolver")
        self.names = Names()
        self.names.put("n1", "front", "c1", ["web", "www"], ["10.0.0.2", "fd00::2"])
        self.service = Service(self.loop, self.names, port=PORT)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket()
        for each in (udp, tcp):
            each.bind(("127.0.0.1", 0))
        tcp.listen()
        self.udp, self.tcp = udp.getsockname(), tcp.getsockname()
        settings = {"id": "me", "networks": ["n1"], "servers": list(SERVERS), **client}
        self.service.serve(Client(**settings), udp.detach(), tcp.detach())  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()

    def ask(self, name: str, kind: int = A, *, timeout_s: float = 5) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(timeout_s)
            asking.sendto(ask_bytes(name, kind), self.udp)
            return asking.recv(65536)

    def ask_tcp(self, *names: str) -> list[bytes]:
        with socket.create_connection(self.tcp, 5) as asking:
            for name in names:
                data = ask_bytes(name)
                asking.sendall(len(data).to_bytes(2, "big") + data)
            with asking.makefile("rb") as stream:
                return [stream.read(int.from_bytes(stream.read(2), "big")) for _ in names]

    def close(self) -> None:
        def stop() -> None:
            self.service.drop("me")
            self.loop.running = False

        self.loop.later(0, stop)
        self.ask_nothing()
        self._thread.join(5)
        assert not self._thread.is_alive()

    def ask_nothing(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waking:
            waking.sendto(b"?", self.udp)


@pytest.fixture
def start() -> Iterator[Callable[..., Resolver]]:
    started: list[Resolver] = []

    def make(**client: object) -> Resolver:
        started.append(Resolver(**client))
        return started[-1]

    yield make
    for each in started:
        each.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., NameServer]]:
    started: list[NameServer] = []

    def make(address: str, behave: Callable[[bytes, bool], list[bytes]]) -> NameServer:
        started.append(NameServer(address, behave))
        return started[-1]

    yield make
    for each in started:
        each.close()


def code(reply: bytes) -> int:
    return reply[3] & 0xF


def count(reply: bytes) -> int:
    return int.from_bytes(reply[6:8], "big")


def test_names_of_containers(start: Callable[..., Resolver]) -> None:
    resolver = start()
    assert resolver.ask("WEB").endswith(bytes([0, 4, 10, 0, 0, 2]))
    assert resolver.ask("web.front", AAAA).endswith(b"\xfd" + bytes(14) + b"\2")
    assert (code(resolver.ask("web", 15)), count(resolver.ask("web", 15))) == (NOERROR, 0)
    assert b"\x03web\x05front\0" in resolver.ask("2.0.0.10.in-addr.arpa", PTR)
    assert [count(reply) for reply in resolver.ask_tcp("web", "www")] == [1, 1]


def test_other_names_come_from_servers_and_are_kept(
    start: Callable[..., Resolver], serve: Callable[..., NameServer]
) -> None:
    server = serve(SERVERS[0], lambda data, _: [answer(data)])
    resolver = start()
    for name in ("example.org", "EXAMPLE.org", "example.org"):
        reply = resolver.ask(name)
        assert (reply[:2], code(reply), reply[-4:]) == (b"\0\x63", NOERROR, bytes([192, 0, 2, 1]))
        assert domain_name(name) in reply  # as it was spelt
    assert len(server.heard) == 1
    assert server.heard[0][:2] != b"\0\x63"


def test_an_internal_container_asks_nobody(start: Callable[..., Resolver], serve: Callable[..., NameServer]) -> None:
    server = serve(SERVERS[0], lambda data, _: [answer(data)])
    resolver = start(forward=False)
    assert code(resolver.ask("example.org")) == NXDOMAIN
    assert code(resolver.ask_tcp("example.org")[0]) == NXDOMAIN
    assert code(resolver.ask("1.0.0.10.in-addr.arpa", PTR)) == NXDOMAIN
    assert count(resolver.ask("web")) == 1
    assert server.heard == []


def test_a_silent_a_refusing_and_a_missing_server(
    start: Callable[..., Resolver], serve: Callable[..., NameServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proa.resolver.upstream.SILENCE_S", 0.2)
    resolver = start()
    assert code(resolver.ask("nobody.example")) == SERVFAIL  # nobody listens: at once
    silent = serve(SERVERS[0], lambda *_: [])
    serve(SERVERS[1], lambda data, _: [answer(data, code=REFUSED, count=0)] if b"refuse" in data else [answer(data)])
    began = time.monotonic()
    assert count(resolver.ask("second.example")) == 1
    assert 0.15 < time.monotonic() - began < 2
    assert code(resolver.ask("refuse.example")) == REFUSED
    assert len(silent.heard) >= 2


def test_forged_answers_are_not_taken(start: Callable[..., Resolver], serve: Callable[..., NameServer]) -> None:
    def forge(data: bytes, _: bool) -> list[bytes]:
        wrong = bytes([6, 6, 6, 6])
        other = data[:12] + domain_name("other.example") + data[-4:]
        flipped = bytes([data[0] ^ 1]) + data[1:]
        return [answer(flipped, wrong), answer(other, wrong), data, b"", b"x", answer(data)]

    serve(SERVERS[0], forge)
    assert start().ask("example.org")[-4:] == bytes([192, 0, 2, 1])


def test_a_long_answer_comes_over_tcp(start: Callable[..., Resolver], serve: Callable[..., NameServer]) -> None:
    def behave(data: bytes, tcp: bool) -> list[bytes]:
        if tcp:
            return [answer(data, count=100)]
        short = bytearray(answer(data, count=0))
        short[2] |= TC >> 8
        return [bytes(short)]

    server = serve(SERVERS[0], behave)
    resolver = start()
    assert resolver.ask("long.example")[2] & TC >> 8
    assert count(resolver.ask_tcp("long.example")[0]) == 100
    assert len(server.heard) == 2  # UDP and TCP once; then from the cache


def test_a_malformed_answer_is_none(start: Callable[..., Resolver], serve: Callable[..., NameServer]) -> None:
    serve(SERVERS[0], lambda data, _: [answer(data)[:-3]])
    assert code(start().ask("bad.example")) == SERVFAIL


def test_two_hundred_at_once(start: Callable[..., Resolver], serve: Callable[..., NameServer]) -> None:
    """Half ask for a container, half for one name outside: asked upstream once."""

    def slow(data: bytes, _: bool) -> list[bytes]:
        time.sleep(0.1)
        return [answer(data)]

    server = serve(SERVERS[0], slow)
    resolver = start()
    asking = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(200)]
    began = time.monotonic()
    for number, each in enumerate(asking):
        each.settimeout(5)
        each.sendto(ask_bytes("web" if number % 2 else "slow.example", number=number), resolver.udp)
    replies = [each.recv(4096) for each in asking]
    took = time.monotonic() - began
    for each in asking:
        each.close()
    assert [int.from_bytes(reply[:2], "big") for reply in replies] == list(range(200))
    assert {count(reply) for reply in replies} == {1}
    assert len(server.heard) == 1
    assert took < 2


def test_clients_that_misbehave(start: Callable[..., Resolver]) -> None:
    resolver = start()
    with socket.create_connection(resolver.tcp, 5) as one:
        one.sendall(b"\xff\xff")
        assert one.recv(10) == b""  # longer than any query
    idle = [socket.create_connection(resolver.tcp, 5) for _ in range(80)]
    for garbage in (b"", b"\0", b"\xff" * 600):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.sendto(garbage, resolver.udp)
    assert count(resolver.ask("web")) == 1
    for each in idle:
        each.close()
    assert count(resolver.ask_tcp("web")[0]) == 1
