"""The tar writer: headers and data out, as plain as the entry allows.

ustar headers, and PAX records only for what those cannot hold; no names of users, no access or change times. The same
entries give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

from proa.storage.layers.headers import BLOCK, Entry
from proa.storage.layers.names import split
from proa.storage.layers.pax import XATTR, Records, format_records

__all__ = ["Sink", "TarWriter", "header"]

_BUFFER = 256 << 10
_MAX_SIZE = 0o77777777777
_MAX_ID = 0o7777777
_SECOND = 1_000_000_000


class Sink(Protocol):
    """Where an archive goes."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""


def header(entry: Entry) -> bytes:
    """The header blocks of an entry whose data are `entry.stored` bytes: ustar, preceded by PAX records if needed."""
    records: Records = []
    name, prefix = entry.name, b""
    if len(name) > 100:
        prefix, name = _divided(name)
        if not name:
            records.append((b"path", entry.name))
            name = entry.name[:100]
    linkname = entry.linkname
    if len(linkname) > 100:
        records.append((b"linkpath", linkname))
        linkname = linkname[:100]
    uid, gid, size = entry.uid, entry.gid, entry.stored
    if uid > _MAX_ID:
        records.append((b"uid", b"%d" % uid))
        uid = 0
    if gid > _MAX_ID:
        records.append((b"gid", b"%d" % gid))
        gid = 0
    if size > _MAX_SIZE:
        records.append((b"size", b"%d" % size))
        size = 0
    mtime, fraction = divmod(entry.mtime_ns, _SECOND)
    if fraction or not 0 <= mtime <= _MAX_SIZE:
        records.append((b"mtime", _decimal_time(entry.mtime_ns)))
        mtime = min(max(mtime, 0), _MAX_SIZE)
    for key in sorted(entry.xattrs or ()):
        records.append((XATTR + key, (entry.xattrs or {})[key]))
    block = _block(name, entry.mode, uid, gid, size, mtime, entry.kind, linkname, entry.major, entry.minor, prefix)
    if not records:
        return block
    data = format_records(records)
    extension = _block(b"PaxHeaders.0/" + split(entry.name)[1][:80], 0o644, 0, 0, len(data), 0, "x", b"", 0, 0, b"")
    return extension + data + bytes(-len(data) % BLOCK) + block


def _divided(name: bytes) -> tuple[bytes, bytes]:
    """A long name as ustar's prefix and name; b"" for both when it does not fit."""
    slash = name.find(b"/", len(name) - 101)
    if 0 < slash <= 155 and slash < len(name) - 1:
        return name[:slash], name[slash + 1 :]
    return b"", b""


def _decimal_time(time_ns: int) -> bytes:
    sign = b"-" if time_ns < 0 else b""
    seconds, fraction = divmod(abs(time_ns), _SECOND)
    return sign + (b"%d.%09d" % (seconds, fraction)).rstrip(b"0").rstrip(b".")


def _block(
    name: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    kind: str,
    linkname: bytes,
    major: int,
    minor: int,
    prefix: bytes,
) -> bytes:
    block = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%bustar\00000%64b%07o\0%07o\0%b" % (
        name.ljust(100, b"\0"),
        mode,
        uid,
        gid,
        size,
        mtime,
        kind.encode(),
        linkname.ljust(100, b"\0"),
        bytes(64),
        major,
        minor,
        prefix.ljust(155, b"\0"),
    )
    block = block.ljust(BLOCK, b"\0")
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])


class TarWriter:
    """Write entries and their data to a sink in large pieces, and digest what is written.

    With digest=False the sink does it, and `diff_id` stays empty.
    """

    def __init__(self, sink: Sink, *, digest: bool = True) -> None:
        self._sink = sink
        self._hash = hashlib.sha256() if digest else None
        self._parts: list[bytes] = []
        self._buffered = 0
        self.size = 0
        self.entries = 0

    def add(self, entry: Entry, data: Iterable[bytes] = ()) -> None:
        """Write one entry; `data` must come to `entry.stored` bytes."""
        self._write(header(entry))
        for piece in data:
            self._write(piece)
        self._write(bytes(-entry.stored % BLOCK))
        self.entries += 1

    def finish(self) -> str:
        """Write the end of the archive; returns its digest ("sha256:…")."""
        self._write(bytes(2 * BLOCK))
        self._flush()
        return "sha256:" + self._hash.hexdigest() if self._hash else ""

    def _write(self, data: bytes) -> None:
        self._parts.append(data)
        self._buffered += len(data)
        if self._buffered >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        self._buffered = 0
        if self._hash:
            self._hash.update(data)
        self.size += len(data)
        self._sink.write(data)
