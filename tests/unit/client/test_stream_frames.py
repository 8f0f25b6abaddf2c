from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.client.frames import Demultiplexer
from proa.errors import Corrupt


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=20),
    st.lists(st.integers(0, 1200), max_size=20),
)
def test_streams_come_apart_however_they_are_cut(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = b"".join(frame(stream, payload) for stream, payload in frames)
    demultiplexer = Demultiplexer()
    got: dict[int, bytes] = {1: b"", 2: b""}
    start = 0
    for cut in [*sorted(min(c, len(data)) for c in cuts), len(data)]:
        for stream, piece in demultiplexer.feed(data[start:cut]):
            got[stream] += piece
        start = cut
    assert got == {n: b"".join(p for s, p in frames if s == n) for n in (1, 2)}
    assert demultiplexer.between_frames


def test_a_payload_is_given_out_as_it_comes() -> None:
    demultiplexer = Demultiplexer()
    assert demultiplexer.feed(frame(1, b"hello")[:10]) == [(1, b"he")]
    assert not demultiplexer.between_frames


@pytest.mark.parametrize("data", [b"HTTP/1.1", b"\x05\0\0\0\0\0\0\x01", b"\x01\0\x01\0\0\0\0\x01"])
def test_what_is_no_frame(data: bytes) -> None:
    with pytest.raises(Corrupt):
        Demultiplexer().feed(data)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_the_exit_status_is_the_last_frame(step: int) -> None:
    demultiplexer = Demultiplexer()
    data = frame(1, b"out") + frame(4, b"137")
    seen = []
    for start in range(0, len(data), step):
        assert demultiplexer.exit_status is None
        seen += demultiplexer.feed(data[start : start + step])
    assert b"".join(piece for _, piece in seen) == b"out"
    assert demultiplexer.exit_status == 137
