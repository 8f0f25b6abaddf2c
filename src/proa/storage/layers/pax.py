"""PAX extended headers: `length key=value` records (POSIX pax, "pax Extended Header")."""

from __future__ import annotations

import re

from proa.errors import Corrupt, Invalid
from proa.storage.layers.headers import MAX_INTEGER, Entry
from proa.storage.layers.names import display

__all__ = ["Records", "amend", "decimal", "format_records", "parse_records", "refuse_global"]

# In archive order, because GNU sparse 0.0 repeats keys.
Records = list[tuple[bytes, bytes]]

XATTR = b"SCHILY.xattr."

_HEAD = re.compile(rb"([0-9]{1,20}) ([^=]+)=")
_DECIMAL = re.compile(rb"[0-9]{1,20}")
_TIME = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]{0,40}))?")


def parse_records(data: bytes) -> Records:
    """The records of one extended header. Raises Corrupt."""
    records: Records = []
    position, end = 0, len(data)
    while position < end:
        head = _HEAD.match(data, position)
        if head is None:
            raise Corrupt("PAX header: a record has no length or key", code="pax-record")
        length, key = head.groups()
        stop = position + int(length)
        if stop > end or stop <= head.end() or data[stop - 1] != 0x0A:
            raise Corrupt("PAX header: a record is malformed", code="pax-record")
        records.append((key, data[head.end() : stop - 1]))
        position = stop
    return records


def format_records(records: Records) -> bytes:
    """The inverse of parse_records."""
    out = []
    for key, value in records:
        body = len(key) + len(value) + 3  # blank, equals sign, newline
        size = body + len(str(body))
        size = body + len(str(size))
        out.append(b"%d %b=%b\n" % (size, key, value))
    return b"".join(out)


def decimal(value: bytes, key: bytes) -> int:
    """An unsigned decimal of at most 2^53. Raises Corrupt, Invalid."""
    if _DECIMAL.fullmatch(value) is None:
        raise Corrupt(f"PAX header: {display(key)} is not a number", code="pax-record")
    result = int(value)
    if result > MAX_INTEGER:
        raise Invalid(f"PAX header: {display(key)} is out of range", code="tar-number")
    return result


def _nanoseconds(value: bytes, key: bytes) -> int:
    match = _TIME.fullmatch(value)
    if match is None:
        raise Corrupt(f"PAX header: {display(key)} is not a time", code="pax-record")
    sign, seconds, fraction = match.groups()
    if int(seconds) > MAX_INTEGER:
        raise Invalid(f"PAX header: {display(key)} is out of range", code="tar-number")
    result = int(seconds) * 1_000_000_000 + int(((fraction or b"") + b"0" * 9)[:9])
    return -result if sign else result


def _path(value: bytes, key: bytes) -> bytes:
    if b"\0" in value:
        raise Invalid(f"PAX header: {display(key)} contains a NUL byte", code="layer-path", subject=display(value))
    return value


def amend(entry: Entry, records: Records) -> None:
    """Override the header's values by the records; an empty value keeps the header's. Raises Corrupt, Invalid.

    Sparse maps are left to the reader. Later records win.
    """
    for key, value in records:
        if key.startswith(XATTR):
            name = key[len(XATTR) :]
            if not name or b"\0" in name:
                raise Corrupt("PAX header: an extended attribute has a bad name", code="pax-record")
            if entry.xattrs is None:
                entry.xattrs = {}
            entry.xattrs[name] = value
        elif not value:
            continue
        elif key == b"path":
            entry.name = _path(value, key)
        elif key == b"linkpath":
            entry.linkname = _path(value, key)
        elif key == b"size":
            if entry.kind not in "123456":
                entry.size = entry.stored = decimal(value, key)
        elif key == b"mtime":
            entry.mtime_ns = _nanoseconds(value, key)
        elif key == b"uid":
            entry.uid = decimal(value, key)
        elif key == b"gid":
            entry.gid = decimal(value, key)


def refuse_global(records: Records) -> None:
    """Raise Invalid for a global record that names or sizes files.

    Engines disagree on whether such records count, so one digest would mean different files to different engines.
    """
    for key, _ in records:
        if key in (b"path", b"linkpath", b"size") or key.startswith((b"GNU.sparse.", XATTR)):
            raise Invalid(f"PAX header: {display(key)} is not allowed in a global header", code="pax-global")
