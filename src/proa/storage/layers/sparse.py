"""Sparse files in archives: the old GNU map in the header, and PAX formats 0.0, 0.1 and 1.0 (GNU tar manual,
"Storing Sparse Files")."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from proa.errors import Corrupt, Invalid, Unsupported
from proa.storage.layers.budget import Budget
from proa.storage.layers.headers import BLOCK, Entry, number
from proa.storage.layers.names import display
from proa.storage.layers.pax import Records, decimal

__all__ = ["apply_pax", "read_old_gnu", "write_segments"]

Segments = list[tuple[int, int]]
ReadBlock = Callable[[], bytes]

_OLD_MAP, _OLD_COUNT, _OLD_MORE, _OLD_SIZE = 386, 4, 482, 483
_EXTENSION_COUNT, _EXTENSION_MORE = 21, 504


def read_old_gnu(entry: Entry, header: bytes, read_block: ReadBlock, budget: Budget) -> None:
    """Complete a type "S" entry from its header and the extension blocks after it; it becomes a regular file."""
    entry.kind = "0"
    entry.size = number(header[_OLD_SIZE : _OLD_SIZE + 12], "sparse size")
    if entry.size < 0:
        raise Invalid(f"tar header: the size of {display(entry.name)!r} is negative", code="tar-number")
    segments: Segments = []

    def take(block: bytes, start: int, count: int) -> None:
        for at in range(start, start + 24 * count, 24):
            if not block[at] and not block[at + 12]:
                break
            segments.append((number(block[at : at + 12], "sparse map"), number(block[at + 12 : at + 24], "sparse map")))

    take(header, _OLD_MAP, _OLD_COUNT)
    more = header[_OLD_MORE]
    while more:
        if len(segments) > budget.sparse_segments:
            budget.exceeded("sparse_segments", "sparse segments", display(entry.name))
        block = read_block()
        take(block, 0, _EXTENSION_COUNT)
        more = block[_EXTENSION_MORE]
    entry.segments = _checked(entry, segments)


def apply_pax(entry: Entry, records: Records, read_block: ReadBlock, budget: Budget) -> None:
    """Complete an entry that has GNU.sparse.* records; one without them, or not a file, stays as it is."""
    last = {key: value for key, value in records if key.startswith(b"GNU.sparse.")}
    if not last or entry.kind != "0":
        return
    version = last.get(b"GNU.sparse.major"), last.get(b"GNU.sparse.minor")
    if version not in ((None, None), (b"0", b"0"), (b"0", b"1"), (b"1", b"0")):
        raise Unsupported(
            f"{display(entry.name)!r} is stored in an unknown sparse format",
            code="tar-sparse",
            subject=display(entry.name),
        )
    if name := last.get(b"GNU.sparse.name"):
        entry.name = name
    size = last.get(b"GNU.sparse.size") or last.get(b"GNU.sparse.realsize")
    if size:
        entry.size = decimal(size, b"GNU.sparse.size")
    if version == (b"1", b"0"):
        values = _leading_map(entry, read_block, budget)
    elif b"GNU.sparse.map" in last:
        text = last[b"GNU.sparse.map"]
        values = [decimal(v, b"GNU.sparse.map") for v in text.split(b",")] if text else []
    else:
        values = _repeated_keys(records)
    if len(values) // 2 > budget.sparse_segments:
        budget.exceeded("sparse_segments", "sparse segments", display(entry.name))
    if len(values) % 2:
        raise Corrupt(f"the sparse map of {display(entry.name)!r} is malformed", code="tar-sparse")
    entry.segments = _checked(entry, list(zip(values[::2], values[1::2], strict=True)))


def _repeated_keys(records: Records) -> list[int]:
    """Format 0.0: GNU.sparse.offset and GNU.sparse.numbytes in turn."""
    values: list[int] = []
    for key, value in records:
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (key == b"GNU.sparse.numbytes") != bool(len(values) % 2):
                raise Corrupt("PAX header: sparse offsets and lengths do not alternate", code="tar-sparse")
            values.append(decimal(value, key))
    return values


def _leading_map(entry: Entry, read_block: ReadBlock, budget: Budget) -> list[int]:
    """Format 1.0: decimal lines, count first, at the start of the data and padded to whole blocks."""
    text = b""
    values: list[int] = []
    wanted = 1
    while len(values) < wanted:
        if b"\n" not in text:
            if entry.stored < BLOCK or len(text) > BLOCK:
                raise Corrupt(f"the sparse map of {display(entry.name)!r} is malformed", code="tar-sparse")
            entry.stored -= BLOCK
            text += read_block()
            continue
        lines = text.split(b"\n")
        text = lines.pop()
        for line in lines:
            if len(values) == wanted:
                break
            values.append(decimal(line, b"sparse map"))
            if len(values) == 1:
                if values[0] > budget.sparse_segments:
                    budget.exceeded("sparse_segments", "sparse segments", display(entry.name))
                wanted = 1 + 2 * values[0]
    return values[1:]


def write_segments(fd: int, entry: Entry, pieces: Iterator[memoryview]) -> None:
    """Write the data of a sparse entry where its map says; what is between stays a hole. Raises OSError."""
    os.ftruncate(fd, entry.size)
    piece = memoryview(b"")
    for offset, length in entry.segments or ():
        end = offset + length
        while offset < end:
            if not piece:
                piece = next(pieces)
            written = os.pwrite(fd, piece[: end - offset], offset)
            piece = piece[written:]
            offset += written


def _checked(entry: Entry, segments: Segments) -> Segments:
    """Segments ascend, do not overlap, lie within the file, and add up to the stored bytes. Raises Corrupt."""
    position = stored = 0
    for offset, length in segments:
        if offset < position or length < 0 or offset + length > entry.size:
            raise Corrupt(f"the sparse map of {display(entry.name)!r} does not fit the file", code="tar-sparse")
        position = offset + length
        stored += length
    if stored != entry.stored:
        raise Corrupt(f"the sparse map of {display(entry.name)!r} does not fit its data", code="tar-sparse")
    return [s for s in segments if s[1]]
