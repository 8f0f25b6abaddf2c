"""Cutting the byte stream into requests, and descriptors with them."""

from __future__ import annotations

import socket

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.errors import Invalid
from proa.monitor import protocol
from proa.monitor.protocol import Inbox, encode_line, parse_request, parse_start, read_line


@given(st.lists(st.binary(min_size=1, max_size=30).filter(lambda b: b"\n" not in b)), st.integers(1, 50))
def test_lines_come_whole_whatever_the_pieces(lines: list[bytes], step: int) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    inbox = Inbox()
    got = [line for at in range(0, len(stream), step) for line in inbox.feed(stream[at : at + step])]
    assert got == lines


def test_descriptors_are_taken_in_order() -> None:
    inbox = Inbox()
    inbox.fds = [5, 6, 7]
    assert inbox.take(0) == []
    assert inbox.take(2) == [5, 6]
    assert inbox.take(1) == [7]
    with pytest.raises(ValueError, match="announces"):
        inbox.take(1)


def test_a_message_has_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_MESSAGE_BYTES", 100)
    inbox = Inbox()
    inbox.feed(b"x" * 100)
    with pytest.raises(ValueError, match="exceeds"):
        inbox.feed(b"x")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b'{"op":"nonsense"}',
        b'{"op":"kill"}',
        b'{"op":"kill","signal":"x"}',
        b'{"op":"state","fds":1}',
    ],
)
def test_bad_requests_are_refused(line: bytes) -> None:
    with pytest.raises(Invalid):
        parse_request(line, Inbox())


def test_every_request_survives_the_wire() -> None:
    requests = [
        protocol.StartRequest(
            id="a", dir="/d", socket="/s", config={"x": [1]}, attach=[protocol.Attach(early=b"\xff")]
        ),
        protocol.WatchRequest(),
        protocol.StateRequest(seq=3),
        protocol.AttachRequest(attach=protocol.Attach(streams=("stdout",), stdin=True, detach_keys=[1])),
        protocol.ExecRequest(id="e", process=msgspec.Raw(b'{"args":["x"]}')),
        protocol.ExecStateRequest(id="e"),
        protocol.ResizeRequest(h=1, w=2),
        protocol.KillRequest(signal=9, all=True),
        protocol.PauseRequest(),
        protocol.ResumeRequest(),
    ]
    for request in requests:
        again, fds = parse_request(encode_line(request).rstrip(), Inbox())
        assert type(again) is type(request)
        assert encode_line(again) == encode_line(request)
        assert fds == []


def test_reading_the_first_request_of_a_connection_that_ends() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b'{"op":"sta')
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            read_line(theirs)


def test_the_first_request_must_be_a_start() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(encode_line(protocol.StateRequest()))
        line, fds = read_line(theirs)
        assert fds == []
        with pytest.raises(Invalid, match="start request"):
            parse_start(line)
