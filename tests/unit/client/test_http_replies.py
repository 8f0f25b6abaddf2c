from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.client.http import ReplyReader, query, quote, request_head
from proa.errors import Corrupt


def read(
    data: bytes, *, cuts: list[int] | None = None, method: str = "GET", closed: bool = False
) -> tuple[ReplyReader, bytes]:
    reader = ReplyReader(method)
    body, start = b"", 0
    for cut in [*sorted(cuts or []), len(data)]:
        piece = data[start:cut]
        start = cut
        if piece:
            reader.feed(piece)
            body += reader.take()
    if closed:
        reader.feed(b"")
    return reader, body + reader.take()


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
)


@given(st.lists(st.integers(0, len(CHUNKED)), max_size=8))
def test_chunked_bodies_however_they_are_cut(cuts: list[int]) -> None:
    reader, body = read(CHUNKED + b"rest", cuts=cuts)
    assert body == b"hello world"
    assert reader.done
    assert reader.reusable
    assert reader.rest == b"rest"


@given(st.lists(st.integers(0, len(LENGTH)), max_size=5))
def test_bodies_of_known_length_however_they_are_cut(cuts: list[int]) -> None:
    reader, body = read(LENGTH, cuts=cuts)
    assert body == b"hello"
    assert reader.reusable
    assert reader.head is not None
    assert reader.head.headers["x-a"] == "b"


def test_a_body_that_ends_with_the_connection() -> None:
    reader, body = read(b"HTTP/1.1 200 OK\r\n\r\nall of it", closed=True)
    assert body == b"all of it"
    assert reader.done
    assert not reader.reusable


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_replies_without_a_body(status: bytes) -> None:
    reader, body = read(b"HTTP/1.1 " + status + b"\r\n\r\n")
    assert reader.done
    assert body == b""


def test_a_reply_to_head_has_no_body() -> None:
    reader, _ = read(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", method="HEAD")
    assert reader.done


def test_an_upgrade_keeps_the_first_raw_bytes() -> None:
    reader, _ = read(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n\x01\x00")
    assert reader.upgraded
    assert reader.rest == b"\x01\x00"


def test_interim_replies_are_passed_over() -> None:
    reader, body = read(b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH)
    assert body == b"hello"
    assert reader.head is not None
    assert reader.head.status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"x" * (70 << 10),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000,
    ],
)
def test_what_is_not_http(data: bytes) -> None:
    with pytest.raises(Corrupt):
        read(data)


@pytest.mark.parametrize("data", [LENGTH[:-1], CHUNKED[:-3], b"HTTP/1.1 200"])
def test_a_reply_that_is_cut_short(data: bytes) -> None:
    with pytest.raises(Corrupt, match="middle of a reply"):
        read(data, closed=True)


def test_request_heads() -> None:
    assert request_head("GET", "/x") == b"GET /x HTTP/1.1\r\nHost: proa\r\n\r\n"
    assert b"Content-Length: 0\r\n" in request_head("POST", "/x")
    assert b"Transfer-Encoding: chunked\r\n" in request_head("POST", "/x", length=None)
    assert b"Connection: Upgrade\r\nUpgrade: tcp\r\n" in request_head("POST", "/x", upgrade=True)
    for bad in ("/x\r\nA: b", "/x\n", "/\0"):
        with pytest.raises(ValueError, match="control character"):
            request_head("GET", bad)


@given(st.text())
def test_quoted_text_is_one_harmless_word(text: str) -> None:
    from urllib.parse import unquote

    quoted = quote(text) if text.isascii() or text.encode("utf-8", "ignore").decode() == text else "x"
    assert quoted.isascii()
    assert not set(quoted) & set(" ?#&=\r\n\0%") - {"%"}
    if quoted != "x":
        assert unquote(quoted) == text


def test_queries_leave_out_what_is_not_set() -> None:
    assert query(a="x y", b=True, c=False, d=None, e="", f=0) == "?a=x%20y&b=1&f=0"
    assert query(a=None) == ""
