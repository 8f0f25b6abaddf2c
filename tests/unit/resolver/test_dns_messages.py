"""DNS messages as bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.resolver.message import (
    AAAA,
    NOERROR,
    NXDOMAIN,
    OPT,
    SOA,
    A,
    Record,
    domain_name,
    lifetimes,
    parse_query,
    reply_to,
    truncated_reply,
    with_lifetimes,
)


def question(name: str, kind: int = A, *, number: int = 7, flags: int = 0x0100, opt: bytes = b"") -> bytes:
    head = struct.pack(">HHHHHH", number, flags, 1, 0, 0, int(bool(opt)))
    return head + domain_name(name) + struct.pack(">HH", kind, 1) + opt


OPT_4096_DO = b"\0" + struct.pack(">HHIH", OPT, 4096, 0x8000, 0)


def test_a_query_and_our_answer() -> None:
    query = parse_query(question("Web.Example"))
    assert (query.id, query.name, query.type, query.udp_bytes, query.has_opt) == (7, "web.example", A, 512, False)
    reply = reply_to(query, NOERROR, [Record(A, 10, bytes([10, 0, 0, 2])), Record(A, 10, bytes([10, 0, 0, 3]))])
    assert struct.unpack(">HHHHHH", reply[:12]) == (7, 0x8180, 1, 2, 0, 0)
    assert reply[12:29] == b"\x03Web\x07Example\0" + struct.pack(">HH", A, 1)
    assert reply[29:] == b"".join(
        b"\xc0\x0c" + struct.pack(">HHIH", A, 1, 10, 4) + bytes([10, 0, 0, last]) for last in (2, 3)
    )
    assert reply_to(query, NXDOMAIN)[3] & 0xF == NXDOMAIN


def test_edns_is_answered_with_edns() -> None:
    query = parse_query(question("web", AAAA, opt=OPT_4096_DO))
    assert (query.udp_bytes, query.has_opt, query.wants_dnssec) == (4096, True, True)
    reply = reply_to(query, NOERROR)
    assert reply[10:12] == b"\0\1"
    assert reply.endswith(b"\0" + struct.pack(">HHIH", OPT, 1232, 0x8000, 0))
    assert truncated_reply(query)[2] & 0x02


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 11,
        question("a", flags=0x8100),
        question("a", flags=0x2100),
        question("a")[:-1],
        question("a")[:13],
        struct.pack(">HHHHHH", 1, 0x100, 2, 0, 0, 0) + b"\1a\0\0\1\0\1" * 2,
        struct.pack(">HHHHHH", 1, 0x100, 1, 1, 0, 0) + b"\1a\0\0\1\0\1",
        struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\1a\0\0\1\0\3",  # class CHAOS
        struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",  # points at itself
        struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\x40a\0\0\1\0\1",
        struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",  # 256 bytes
        question("a", opt=b"\0" + struct.pack(">HHIH", OPT, 4096, 0, 0)[:-1]),
    ],
)
def test_what_is_no_query_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_query(data)


@given(st.binary(max_size=200))
def test_garbage_is_a_value_error_or_a_query(data: bytes) -> None:
    for parse in (parse_query, lifetimes):
        try:
            parse(data)
        except (ValueError, struct.error):
            pass


@pytest.mark.parametrize("name", ["", "a..b", "a" * 64, ".".join(["a" * 60] * 5)])
def test_names_that_do_not_fit(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        domain_name(name)


def _answer(records: list[tuple[int, int, bytes]], answers: int, code: int = NOERROR) -> bytes:
    head = struct.pack(">HHHHHH", 7, 0x8180 | code, 1, answers, len(records) - answers, 0)
    body = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data for kind, ttl, data in records)
    return head + question("web")[12:] + body


def test_lifetimes_are_the_shortest_and_count_down() -> None:
    data = _answer([(A, 300, bytes(4)), (A, 60, bytes(4)), (2, 5, b"\0")], 2)
    seconds, places = lifetimes(data)
    assert seconds == 60
    aged = with_lifetimes(data, places, 100)
    assert [struct.unpack_from(">I", aged, place)[0] for place in places] == [200, 0, 0]
    assert len(aged) == len(data)


def test_no_is_kept_as_long_as_the_zone_says() -> None:
    soa = b"\0\0" + struct.pack(">IIIII", 1, 2, 3, 4, 30)
    assert lifetimes(_answer([(SOA, 900, soa)], 0, NXDOMAIN))[0] == 30
    assert lifetimes(_answer([(SOA, 9, soa)], 0, NXDOMAIN))[0] == 9
    assert lifetimes(_answer([], 0, NXDOMAIN))[0] == 0
