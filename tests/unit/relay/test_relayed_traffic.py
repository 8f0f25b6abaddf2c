"""What goes through the relay's doors, over this machine's loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from proa.linux.events import Loop
from proa.relay.door import open_door
from proa.relay.traffic import Traffic

RESET = struct.pack("@ii", 1, 0)


class Running:
    """Traffic with a thread that turns its loop."""

    def __init__(self, most: int = 100) -> None:
        self.loop = Loop("relay")
        self.traffic = Traffic(self.loop, most)
        self._doors: list[tuple[str, str, int]] = []
        self._over = False
        self._thread = threading.Thread(target=self._turn)
        self._thread.start()

    def _turn(self) -> None:
        while not self._over:
            self.loop.step(0.02)
            self.traffic.tick()

    def door(self, protocol: str, *targets: tuple[str, int]) -> int:
        """A door at 127.0.0.1; its port."""
        with open_door(protocol, "127.0.0.1", 0) as made:
            port = int(made.getsockname()[1])
            self.traffic.take((protocol, "127.0.0.1", port), list(targets), os.dup(made.fileno()))
        self._doors.append((protocol, "127.0.0.1", port))
        return port

    def shut(self) -> None:
        for key in self._doors:
            self.traffic.shut(key)

    def close(self) -> None:
        self._over = True
        self._thread.join()
        self.shut()
        for address in ("127.0.0.1", "::1"):
            self.traffic.part(address)
        assert self.traffic.idle


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """Starts a tcp server that hands each connection to a function; its port."""
    listeners = []
    threads = []

    def start(talk: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                thread = threading.Thread(target=talk, args=(connection,))
                threads.append(thread)
                thread.start()

        thread = threading.Thread(target=accept)
        threads.append(thread)
        thread.start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()


def client_of(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.settimeout(20)
    return client


def test_more_than_fits_reaches_a_slow_reader_whole(running: Running, serve: Callable[..., int]) -> None:
    sent = os.urandom(1 << 20) * 16

    def talk(connection: socket.socket) -> None:
        with connection:
            connection.sendall(sent)

    with client_of(running.door("tcp", ("127.0.0.1", serve(talk)))) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        time.sleep(0.2)
        with client.makefile("rb") as reader:
            assert reader.read() == sent


def test_many_small_pieces_reach_a_server_that_listens_late(running: Running, serve: Callable[..., int]) -> None:
    piece = os.urandom(6000)
    sent_all = threading.Event()
    heard = []

    def talk(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            sent_all.wait(20)
            heard.append(reader.read())
            connection.sendall(b"heard")

    with client_of(running.door("tcp", ("127.0.0.1", serve(talk)))) as client:
        for _ in range(800):
            client.sendall(piece)
            time.sleep(0.0002)  # so that the relay sees pieces, not one lump
        sent_all.set()
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b"heard"
    assert heard == [piece * 800]


def test_a_server_that_ends_at_once_is_no_server_that_refuses(running: Running, serve: Callable[..., int]) -> None:
    port = running.door("tcp", ("127.0.0.1", serve(socket.socket.close)))
    for _ in range(50):
        with client_of(port) as client:
            assert client.recv(10) == b""


def test_the_end_of_one_direction_leaves_the_other(running: Running, serve: Callable[..., int]) -> None:
    def talk(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            heard = reader.read()
            connection.sendall(b"heard " + heard)

    with client_of(running.door("tcp", ("127.0.0.1", serve(talk)))) as client:
        client.sendall(b"all")
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as reader:
            assert reader.read() == b"heard all"


def test_a_reset_is_a_reset_on_the_other_side(running: Running, serve: Callable[..., int]) -> None:
    heard = []

    def talk(connection: socket.socket) -> None:
        with connection:
            try:
                heard.append(connection.recv(10))
                heard.append(connection.recv(10))
            except ConnectionResetError:
                heard.append(b"reset")

    port = running.door("tcp", ("127.0.0.1", serve(talk)))
    client = client_of(port)
    client.sendall(b"hello")
    end = time.monotonic() + 20
    while not heard and time.monotonic() < end:
        time.sleep(0.01)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
    while len(heard) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert heard == [b"hello", b"reset"]


def test_the_next_target_is_tried_when_one_does_not_listen(running: Running, serve: Callable[..., int]) -> None:
    def talk(connection: socket.socket) -> None:
        with connection:
            connection.sendall(b"here")

    port = serve(talk)
    with client_of(running.door("tcp", ("::1", port), ("127.0.0.1", port))) as client:
        assert client.recv(10) == b"here"
    nobody = running.door("tcp", ("::1", port))
    with pytest.raises(ConnectionResetError), client_of(nobody) as client:
        client.recv(10)


def test_connections_live_on_behind_a_door_that_was_shut(running: Running, serve: Callable[..., int]) -> None:
    def talk(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(100):
                connection.sendall(data)

    port = running.door("tcp", ("127.0.0.1", serve(talk)))
    with client_of(port) as client:
        client.sendall(b"one")
        assert client.recv(10) == b"one"
        running.shut()
        with pytest.raises(ConnectionRefusedError):
            client_of(port)
        client.sendall(b"two")
        assert client.recv(10) == b"two"


def test_more_clients_than_may_be_wait_their_turn(serve: Callable[..., int]) -> None:
    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the last of them has gone before
            connection.sendall(b"yours")
            connection.recv(1)

    running = Running(most=2)
    try:
        port = running.door("tcp", ("127.0.0.1", serve(talk)))
        clients = [client_of(port) for _ in range(5)]
        for client in clients:
            assert client.recv(10) == b"yours"
            client.close()
    finally:
        running.close()


def test_each_client_of_a_udp_door_gets_its_own_answers(running: Running) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        port = running.door("udp", server.getsockname())
        clients = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(3)]
        sources = []
        for number, client in enumerate(clients):
            client.settimeout(20)
            client.connect(("127.0.0.1", port))
            client.send(bytes([number]) * 60000)
            data, place = server.recvfrom(65536)
            assert data == bytes([number]) * 60000
            sources.append(place)
        assert len(set(sources)) == 3
        for number, place in reversed(list(enumerate(sources))):
            server.sendto(bytes([number]), place)
        for number, client in enumerate(clients):
            assert client.recv(10) == bytes([number])
            client.close()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_door_for_loopback_takes_nothing_else(protocol: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with open_door(protocol, "::", 0, only_loopback=True) as door:
        port = door.getsockname()[1]
        assert door.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        door.settimeout(20)
        with socket.socket(socket.AF_INET6, kind) as client:
            client.connect(("::1", port))
            if protocol == "udp":
                client.send(b"?")
                assert door.recv(10) == b"?"
            else:
                door.accept()[0].close()
    with open_door(protocol, "127.0.0.1", 0) as door, pytest.raises(OSError, match="in use"):
        open_door(protocol, "127.0.0.1", door.getsockname()[1])
