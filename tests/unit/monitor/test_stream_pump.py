"""Streams between a process's pipes and attached sockets, without any process: framing, back-pressure, half-close."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from proa.monitor.loop import Loop
from proa.monitor.protocol import Attach
from proa.monitor.streams import Streams


class Pump:
    """A process made of pipes: `out` and `err` are written as it would, `stdin` is what it reads."""

    def __init__(self, *, tty: bool = False, stdin_once: bool = False) -> None:
        self.loop = Loop()
        out_r, self.out = os.pipe()
        err_r, self.err = os.pipe()
        self.stdin, stdin_w = os.pipe()
        self.detached = 0
        outputs = {out_r: "stdout"} if tty else {out_r: "stdout", err_r: "stderr"}
        self.sockets: list[socket.socket] = []
        self.streams = Streams(
            self.loop, outputs, stdin_w, tty=tty, stdin_once=stdin_once, on_detach=self._count_detach
        )

    def _count_detach(self) -> None:
        self.detached += 1

    def attach(self, how: Attach | None = None) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.streams.attach(theirs.detach(), how or Attach())
        ours.settimeout(5)
        self.sockets.append(ours)
        return ours

    def end_output(self) -> None:
        for fd in (self.out, self.err):
            os.close(fd)
        self.out = self.err = -1

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.turn(lambda: self.streams.idle)
        self.streams.finish()
        self.turn(for_s=0.02)
        for fd in (self.out, self.err, self.stdin):
            if fd >= 0:
                os.close(fd)

    def turn(self, until: Callable[[], bool] = lambda: False, for_s: float = 0.1) -> None:
        deadline = time.monotonic() + for_s
        while not until() and time.monotonic() < deadline:
            self.loop.call_at(time.monotonic() + 0.01, lambda: None)
            self.loop.turn()


@pytest.fixture
def make() -> Iterator[Callable[..., Pump]]:
    made: list[Pump] = []

    def build(**options: bool) -> Pump:
        made.append(Pump(**options))
        return made[-1]

    yield build
    for pump in made:
        pump.close()


@pytest.fixture
def pump(make: Callable[..., Pump]) -> Pump:
    return make()


def frame(stream: int, data: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def receive_all(client: socket.socket) -> bytes:
    data = b""
    while chunk := client.recv(1 << 16):
        data += chunk
    return data


def test_output_is_framed_by_stream(pump: Pump) -> None:
    client = pump.attach()
    os.write(pump.out, b"hello\n")
    pump.turn()
    os.write(pump.err, b"oops\n")
    pump.turn()
    assert client.recv(100) == frame(1, b"hello\n") + frame(2, b"oops\n")


def test_a_client_gets_only_the_streams_it_wants(pump: Pump) -> None:
    client = pump.attach(Attach(streams=("stderr",)))
    os.write(pump.out, b"hello\n")
    os.write(pump.err, b"oops\n")
    pump.turn()
    assert client.recv(100) == frame(2, b"oops\n")


def test_a_terminal_is_raw(make: Callable[..., Pump]) -> None:
    pump = make(tty=True)
    client = pump.attach()
    os.write(pump.out, b"raw")
    pump.turn()
    assert client.recv(100) == b"raw"


def test_half_close_keeps_output_coming(pump: Pump) -> None:
    client = pump.attach()
    client.shutdown(socket.SHUT_WR)
    pump.turn()
    os.write(pump.out, b"later")
    pump.turn()
    assert client.recv(100) == frame(1, b"later")


def test_a_client_that_closed_is_forgotten(pump: Pump) -> None:
    client = pump.attach()
    client.close()
    pump.turn(lambda: pump.streams.idle)
    assert pump.streams.idle


def test_input_reaches_the_process_and_its_end_does_with_stdin_once(make: Callable[..., Pump]) -> None:
    pump = make(stdin_once=True)
    client = pump.attach(Attach(stdin=True))
    client.sendall(b"input")
    client.shutdown(socket.SHUT_WR)
    pump.turn(lambda: not pump.streams.stdin_open)
    assert os.read(pump.stdin, 100) == b"input"
    assert os.read(pump.stdin, 100) == b""
    os.write(pump.out, b"answer")
    pump.turn()
    assert client.recv(100) == frame(1, b"answer")


def test_without_stdin_once_the_end_of_input_ends_the_attach_only(pump: Pump) -> None:
    client = pump.attach(Attach(stdin=True))
    client.sendall(b"input")
    client.shutdown(socket.SHUT_WR)
    pump.turn(lambda: pump.streams.idle)
    assert client.recv(100) == b""
    assert pump.streams.stdin_open
    again = pump.attach(Attach(stdin=True))
    again.sendall(b" more")
    pump.turn()
    assert os.read(pump.stdin, 100) == b"input more"


def test_input_of_a_client_that_is_gone_already_is_still_delivered(make: Callable[..., Pump]) -> None:
    pump = make(stdin_once=True)
    data = os.urandom(300_000)
    client = pump.attach(Attach(stdin=True))
    client.settimeout(0)
    sent = 0
    got = b""
    os.set_blocking(pump.stdin, False)

    def read() -> None:
        nonlocal got
        try:
            while chunk := os.read(pump.stdin, 65536):
                got += chunk
        except BlockingIOError:
            pass

    while sent < len(data):
        try:
            sent += client.send(data[sent:])
        except BlockingIOError:
            pump.turn(for_s=0.02)
            read()
    client.close()
    deadline = time.monotonic() + 5
    while len(got) < len(data) and time.monotonic() < deadline:
        pump.turn(for_s=0.02)
        read()
    assert got == data
    pump.turn(lambda: pump.streams.idle and not pump.streams.stdin_open)
    assert not pump.streams.stdin_open
    assert pump.streams.idle


def test_early_input_comes_first(pump: Pump) -> None:
    client = pump.attach(Attach(stdin=True, early=b"early "))
    client.sendall(b"late")
    pump.turn()
    assert os.read(pump.stdin, 100) == b"early late"


def test_detach_keys_end_one_attach_on_a_terminal(make: Callable[..., Pump]) -> None:
    pump = make(tty=True)
    typing, watching = pump.attach(Attach(stdin=True)), pump.attach()
    typing.sendall(b"x\x10\x11y")
    pump.turn()
    assert os.read(pump.stdin, 100) == b"x"
    assert typing.recv(100) == b""
    assert pump.detached == 1
    os.write(pump.out, b"still")
    pump.turn()
    assert watching.recv(100) == b"still"


def test_detach_keys_are_data_without_a_terminal(pump: Pump) -> None:
    client = pump.attach(Attach(stdin=True))
    client.sendall(b"\x10\x11")
    pump.turn()
    assert os.read(pump.stdin, 100) == b"\x10\x11"


def test_other_detach_keys(make: Callable[..., Pump]) -> None:
    pump = make(tty=True)
    client = pump.attach(Attach(stdin=True, detach_keys=[1, 2]))
    client.sendall(b"\x10\x11\x01\x02")
    pump.turn()
    assert os.read(pump.stdin, 100) == b"\x10\x11"
    assert client.recv(10) == b""


def fill(pump: Pump) -> int:
    """Write output until the process would block; returns how much that took."""
    os.set_blocking(pump.out, False)
    total = 0
    quiet = 0
    while quiet < 3:
        try:
            total += os.write(pump.out, bytes(8192))
            quiet = 0
        except BlockingIOError:
            pump.turn(for_s=0.02)
            quiet += 1
    return total


def test_a_stuck_client_slows_the_process_and_its_leaving_frees_it(pump: Pump) -> None:
    stuck = pump.attach()
    held = fill(pump)
    assert held < 4 << 20  # socket, one chunk, pipe: bounded
    reading = pump.attach()
    stuck.close()
    pump.turn()
    assert fill_and_read(pump, reading, 2 << 20)


def fill_and_read(pump: Pump, client: socket.socket, size: int) -> bool:
    client.settimeout(0)
    got = 0
    deadline = time.monotonic() + 5
    while got < size and time.monotonic() < deadline:
        try:
            os.write(pump.out, bytes(8192))
        except BlockingIOError:
            pump.turn(for_s=0.005)
        try:
            got += len(client.recv(1 << 20))
        except BlockingIOError:
            pump.turn(for_s=0.005)
    return got >= size


def test_a_slow_client_gets_everything(pump: Pump) -> None:
    client = pump.attach()
    written = fill(pump)
    pump.end_output()
    got = 0
    client.settimeout(0)
    deadline = time.monotonic() + 5
    data = b""
    while not pump.streams.ended or got < written:
        assert time.monotonic() < deadline
        try:
            data += client.recv(1 << 20)
        except BlockingIOError:
            pump.turn(for_s=0.005)
        got = len(data)
    pump.streams.finish()
    pump.turn()
    client.settimeout(5)
    data += receive_all(client)
    payload = 0
    while data:
        size = int.from_bytes(data[4:8], "big")
        payload += size
        data = data[8 + size :]
    assert payload == written


def test_the_end_drains_the_pipes_whatever_clients_do(pump: Pump) -> None:
    stuck = pump.attach()
    fill(pump)
    pump.end_output()
    assert pump.streams.drain()
    pump.streams.finish()
    assert not pump.streams.idle  # still flushing
    total = 0
    stuck.settimeout(0.02)
    while True:
        try:
            chunk = stuck.recv(1 << 20)
        except TimeoutError:
            pump.turn(for_s=0.01)
            continue
        if not chunk:
            break
        total += len(chunk)
        pump.turn(for_s=0.01)
    assert total
    assert pump.streams.idle


def test_many_clients_come_and_go_without_leaking_descriptors(pump: Pump) -> None:
    pump.attach().close()
    pump.turn(lambda: pump.streams.idle)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        pump.attach(Attach(stdin=True)).close()
        pump.turn(for_s=0.001)
    pump.turn(lambda: pump.streams.idle, for_s=2)
    assert len(os.listdir("/proc/self/fd")) <= before
