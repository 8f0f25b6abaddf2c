from __future__ import annotations

import os
import pty
import socket
import threading
from collections.abc import Iterator

import pytest

from proa.cli import session
from proa.cli.session import DetachKeys, converse, detach_keys
from proa.cli.terminal import printable
from proa.client.connection import Connection
from proa.client.frames import Demultiplexer
from proa.errors import Invalid


def typed(keys: DetachKeys, *pieces: bytes) -> list[tuple[bytes, bool]]:
    return [keys.feed(piece) for piece in pieces]


def test_detach_keys_are_taken_out_of_the_input() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert typed(keys, b"abc", b"\x10", b"\x11") == [(b"abc", False), (b"", False), (b"", True)]
    assert DetachKeys(b"\x10\x11").feed(b"x\x10\x11y") == (b"x", True)


def test_a_beginning_of_them_goes_on_to_the_container() -> None:
    assert typed(DetachKeys(b"\x10\x11"), b"\x10", b"a") == [(b"", False), (b"\x10a", False)]
    assert typed(DetachKeys(b"\x10\x11"), b"\x10\x10\x11") == [(b"\x10", True)]


def test_how_detach_keys_are_written() -> None:
    keys = detach_keys("ctrl-a,x")
    assert keys is not None
    assert keys.feed(b"\x01x") == (b"", True)
    for text in ("ctrl-", "ctrl-1", "ab", "a,,b", "alt-x"):
        with pytest.raises(Invalid):
            detach_keys(text)


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    with theirs:
        connection = Connection(ours)  # type: ignore[arg-type]
        yield connection, theirs
        connection.close()


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def test_output_goes_to_the_two_streams(
    pair: tuple[Connection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[int, bytes] = {1: b"", 2: b""}

    def put(fd: int, data: bytes) -> None:
        written[fd] += data

    monkeypatch.setattr(session, "put", put)
    connection, engine = pair
    engine.sendall(frame(1, b"out") + frame(2, b"err") + frame(1, b"more"))
    engine.close()
    assert converse(connection, demultiplexer=Demultiplexer())
    assert written == {1: b"outmore", 2: b"err"}


def test_large_input_and_output_do_not_block_each_other(
    pair: tuple[Connection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An echo whose both directions are far larger than any buffer."""
    got: list[bytes] = []
    monkeypatch.setattr(session, "put", lambda _, data: got.append(data))
    connection, engine = pair

    def echo() -> None:
        while data := engine.recv(65536):
            engine.sendall(data)
        engine.close()

    thread = threading.Thread(target=echo)
    thread.start()
    out, into = os.pipe()
    payload = os.urandom(4 << 20)
    feeder = threading.Thread(target=lambda: (session_write(into, payload), os.close(into)))
    feeder.start()
    assert converse(connection, demultiplexer=None, stdin=out)
    thread.join(10)
    feeder.join(10)
    os.close(out)
    assert b"".join(got) == payload


def session_write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def test_typing_the_detach_keys_leaves(pair: tuple[Connection, socket.socket]) -> None:
    connection, engine = pair
    out, into = os.pipe()
    os.write(into, b"ls\n\x10\x11")
    assert not converse(connection, demultiplexer=None, stdin=out, keys=detach_keys(""))
    os.close(into)
    os.close(out)
    assert engine.recv(100) == b"ls\n"


def test_a_closed_stdin_is_an_end_of_input(pair: tuple[Connection, socket.socket]) -> None:
    connection, engine = pair
    out, into = os.pipe()
    os.close(into)
    os.close(out)

    def engine_side() -> None:
        assert engine.recv(10) == b""
        engine.close()

    thread = threading.Thread(target=engine_side)
    thread.start()
    assert converse(connection, demultiplexer=None, stdin=out)
    thread.join(10)


def test_text_cannot_command_a_terminal() -> None:
    ours, theirs = pty.openpty()
    try:
        evil = "a\x1b[2Jb\x07\x9bc\u202ed\te\n\x00\x7f"
        assert printable(evil, theirs) == "a[2Jbcd\te\n"
        out, into = os.pipe()
        assert printable(evil, into) == evil
        os.close(out)
        os.close(into)
    finally:
        os.close(ours)
        os.close(theirs)
