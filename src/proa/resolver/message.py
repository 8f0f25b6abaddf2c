"""DNS messages: the little of RFC 1035 and 6891 that a forwarding resolver needs.

A query is looked at as far as its one question and its OPT record; an answer is forwarded as the bytes it is, and only
the places of its time-to-live fields are looked up, so that a cached one can be aged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = [
    "A",
    "AAAA",
    "ANY",
    "NOERROR",
    "NXDOMAIN",
    "PTR",
    "REFUSED",
    "SERVFAIL",
    "Query",
    "Record",
    "lifetimes",
    "parse_query",
    "reply_to",
    "truncated_reply",
    "with_lifetimes",
]

A, SOA, PTR, AAAA, OPT, ANY = 1, 6, 12, 28, 41, 255
INTERNET = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
QR, TC, RD, RA, AD, CD = 0x8000, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODES = 0x7800
DO = 0x8000

HEADER = struct.Struct(">HHHHHH")
_FIXED = struct.Struct(">HHIH")
# What we tell and take over UDP: the path inside one machine has no smaller MTU, the way upstream has (DNS flag day).
UDP_BYTES = 1232
MAX_POINTERS = 64


class Query(NamedTuple):
    """A question: `name` in lower case without the last dot; `question` its bytes; udp_bytes what the asker takes."""

    id: int
    flags: int
    name: str
    type: int
    question: bytes
    udp_bytes: int
    has_opt: bool
    wants_dnssec: bool


class Record(NamedTuple):
    """One resource record of the question's name and class."""

    type: int
    ttl_s: int
    data: bytes


def parse_query(data: bytes) -> Query:
    """The one question of a message. Raises ValueError for anything that is no well-formed standard query."""
    if len(data) < HEADER.size:
        raise ValueError("message shorter than its header")
    number, flags, questions, answers, authorities, additionals = HEADER.unpack_from(data)
    if flags & QR or flags & OPCODES or questions != 1 or answers or authorities or additionals > 2:
        raise ValueError("not one standard query")
    labels, offset = _name(data, HEADER.size)
    if offset + 4 > len(data):
        raise ValueError("question cut off")
    kind, family = struct.unpack_from(">HH", data, offset)
    end = offset + 4
    if family != INTERNET:
        raise ValueError("not a question about the Internet")
    udp_bytes, has_opt, dnssec = 512, False, False
    position = end
    for _ in range(additionals):
        _, position = _name(data, position)
        if position + _FIXED.size > len(data):
            raise ValueError("record cut off")
        record, size, ttl, length = _FIXED.unpack_from(data, position)
        position += _FIXED.size + length
        if record == OPT:
            has_opt, udp_bytes, dnssec = True, max(512, size), bool(ttl & DO)
    name = b".".join(labels).decode("latin-1").lower()
    return Query(number, flags, name, kind, data[HEADER.size : end], udp_bytes, has_opt, dnssec)


def reply_to(query: Query, code: int, records: Sequence[Record] = ()) -> bytes:
    """An answer of our own."""
    flags = QR | RA | (query.flags & (RD | CD)) | code
    parts = [HEADER.pack(query.id, flags, 1, len(records), 0, int(query.has_opt)), query.question]
    for record in records:
        # 0xC00C points at the question's name.
        parts.append(b"\xc0\x0c" + struct.pack(">HHIH", record.type, INTERNET, record.ttl_s, len(record.data)))
        parts.append(record.data)
    if query.has_opt:
        parts.append(b"\0" + struct.pack(">HHIH", OPT, UDP_BYTES, DO if query.wants_dnssec else 0, 0))
    return b"".join(parts)


def truncated_reply(query: Query) -> bytes:
    """What tells the asker to come back over TCP."""
    reply = bytearray(reply_to(query, NOERROR))
    reply[2] |= TC >> 8
    return bytes(reply)


def domain_name(name: str) -> bytes:
    """A name on the wire. Raises ValueError for one that does not fit."""
    out = b""
    for label in name.split("."):
        raw = label.encode("latin-1")
        if not 0 < len(raw) < 64:
            raise ValueError("label of wrong length")
        out += bytes([len(raw)]) + raw
    if len(out) > 254:
        raise ValueError("name too long")
    return out + b"\0"


def lifetimes(data: bytes) -> tuple[int, list[int]]:
    """How many seconds an answer may be kept, and where its time-to-live fields are. Raises ValueError.

    An answer without records is kept for its SOA's minimum (RFC 2308), or not at all.
    """
    _, _, questions, answers, authorities, additionals = HEADER.unpack_from(data)
    offset = HEADER.size
    for _ in range(questions):
        _, offset = _name(data, offset)
        offset += 4
    shortest, places = -1, []
    for number in range(answers + authorities + additionals):
        _, offset = _name(data, offset)
        if offset + _FIXED.size > len(data):
            raise ValueError("record cut off")
        kind, _, ttl, length = _FIXED.unpack_from(data, offset)
        if offset + _FIXED.size + length > len(data):
            raise ValueError("record cut off")
        if kind != OPT:
            places.append(offset + 4)
            keep = min(ttl, _minimum(data, offset + _FIXED.size, length)) if kind == SOA and not answers else ttl
            if number < answers or kind == SOA:
                shortest = keep if shortest < 0 else min(shortest, keep)
        offset += _FIXED.size + length
    return max(shortest, 0), places


def with_lifetimes(data: bytes, places: Iterable[int], elapsed_s: int) -> bytearray:
    """An answer after so many seconds."""
    aged = bytearray(data)
    for place in places:
        (ttl,) = struct.unpack_from(">I", aged, place)
        struct.pack_into(">I", aged, place, max(0, ttl - elapsed_s))
    return aged


def _minimum(data: bytes, offset: int, length: int) -> int:
    if length < 20:
        raise ValueError("SOA cut off")
    (minimum,) = struct.unpack_from(">I", data, offset + length - 4)
    return int(minimum)


def _name(data: bytes, offset: int) -> tuple[list[bytes], int]:
    """The labels of a name, and the offset behind it."""
    labels: list[bytes] = []
    end, total = -1, 0
    for _ in range(MAX_POINTERS + 128):
        if offset >= len(data):
            raise ValueError("name cut off")
        length = data[offset]
        if length >= 0xC0:
            if offset + 1 >= len(data):
                raise ValueError("name cut off")
            end = offset + 2 if end < 0 else end
            target = (length & 0x3F) << 8 | data[offset + 1]
            if target >= offset:
                raise ValueError("name points forward")
            offset = target
        elif length > 63:
            raise ValueError("unknown kind of label")
        elif length == 0:
            return labels, offset + 1 if end < 0 else end
        else:
            label = data[offset + 1 : offset + 1 + length]
            total += length + 1
            if len(label) < length or total > 254:
                raise ValueError("name cut off or too long")
            labels.append(label)
            offset += 1 + length
    raise ValueError("name has no end")
