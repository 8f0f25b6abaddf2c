"""Decompress a layer blob as a stream of bounded chunks: gzip (isal, else zlib), zstd, or as it is.

Each chunk is at most CHUNK bytes, however well the input was packed, and the ratio of output to input is bounded by
the Budget.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

from proa.errors import Corrupt, Invalid, Unsupported
from proa.storage.layers.budget import DEFAULT_BUDGET, Budget
from proa.storage.layers.old_formats import old_format, old_pieces
from proa.storage.layers.zstd_frames import zstd_pieces

igzip: Any
try:
    from isal import igzip_lib as igzip
except ImportError:  # no wheel for this machine: the standard library is slower, not different
    igzip = None

__all__ = ["CHUNK", "COMPRESSIONS", "decompress", "detect"]

Read = Callable[[int], bytes]

CHUNK = 256 << 10

COMPRESSIONS = ("none", "gzip", "zstd", "auto", "any")

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_HEADER_LIMIT = 256 << 10
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_NOT_DECLARED = -1  # zstandard.frame_content_size of a frame without a size


def detect(head: bytes) -> str:
    """The compression of a blob that starts with `head` (4 bytes or more): "gzip", "zstd" or "none".

    Raises Unsupported for bzip2 and xz, which Docker once made layers of.
    """
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    # Skippable frames may come first.
    if head.startswith(_ZSTD_MAGIC) or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"
    if name := old_format(head):
        raise Unsupported(f"layer is compressed with {name}", code="layer-compression")
    return "none"


def decompress(compression: str, read: Read, budget: Budget = DEFAULT_BUDGET) -> Iterator[bytes]:
    """The uncompressed chunks of a blob whose bytes `read(n)` returns, b"" at its end.

    compression: one of COMPRESSIONS; "auto" looks at the first bytes, "any" also allows what is no layer's: bzip2 and
    xz. Raises Corrupt (damaged, cut off, followed by
    something else), Exhausted (ratio), Invalid (not a compression).
    """
    if compression in ("auto", "any"):
        head = read(CHUNK)
        while head and len(head) < 6 and (more := read(CHUNK)):
            head += more
        read = _prefixed(head, read)
        if compression == "any" and (old := old_format(head)):
            return old_pieces(old, read, budget)
        compression = detect(head)
    if compression == "none":
        return iter(lambda: read(CHUNK), b"")
    if compression == "gzip":
        return _capped(_gunzip, read, budget)
    if compression == "zstd":
        return _capped(lambda counted: _unzstd(counted, budget), read, budget)
    raise Invalid(f"unknown layer compression {compression!r}", code="layer-compression")


def _prefixed(head: bytes, read: Read) -> Read:
    rest = [head] if head else []
    return lambda size: rest.pop() if rest else read(size)


def _capped(codec: Callable[[Read], Iterator[bytes]], read: Read, budget: Budget) -> Iterator[bytes]:
    consumed = produced = 0

    def counted(size: int) -> bytes:
        nonlocal consumed
        data = read(size)
        consumed += len(data)
        return data

    for chunk in codec(counted):
        produced += len(chunk)
        if produced > budget.ratio_floor_bytes and produced > consumed * budget.ratio:
            budget.exceeded("ratio", "times the compressed size")
        yield chunk


def _gunzip(read: Read) -> Iterator[bytes]:
    """All members of a gzip stream (RFC 1952 section 2.2); like Go's reader, nothing else may follow one."""
    make, failure = _gzip_decoder()
    data = read(64 << 10)
    if not data:
        raise Corrupt("gzip stream is empty", code="layer-compression")
    while data:
        data = _with_whole_header(data, read)
        decoder = make()
        try:
            while not decoder.eof:
                if chunk := decoder.decompress(data, CHUNK):
                    yield chunk
                data = b"" if decoder.eof or not decoder.needs_input else read(64 << 10)
                if decoder.needs_input and not decoder.eof and not data:
                    raise Corrupt("gzip stream is truncated", code="layer-compression")
        except failure as error:
            raise Corrupt(f"gzip stream is damaged: {error}", code="layer-compression") from error
        data = decoder.unused_data or read(64 << 10)
        if data and not _GZIP_MAGIC.startswith(data[:2]) and not data.startswith(_GZIP_MAGIC):
            raise Corrupt("gzip stream is followed by something else", code="layer-compression")


def _with_whole_header(data: bytes, read: Read) -> bytes:
    """`data` and as much more as it takes to hold a whole member header.

    isal up to 2.31 loses its place in a header with several optional fields that comes in parts.
    """
    while not _header_is_whole(data):
        if len(data) > _GZIP_HEADER_LIMIT:
            raise Corrupt("gzip stream has an endless header", code="layer-compression")
        more = read(64 << 10)
        if not more:
            raise Corrupt("gzip stream is truncated in a header", code="layer-compression")
        data += more
    return data


def _header_is_whole(data: bytes) -> bool:
    """RFC 1952 section 2.3: ten bytes, then the fields that the flags announce. True too for what is no header."""
    if len(data) < 10:
        return not _GZIP_MAGIC.startswith(data[:2])
    flags = data[3]
    end = 10
    if flags & 4:  # FEXTRA
        end += 2 + int.from_bytes(data[10:12], "little")
    for flag in (8, 16):  # FNAME, FCOMMENT
        if flags & flag:
            end = data.find(b"\0", end) + 1
            if not end:
                return False
    if flags & 2:  # FHCRC
        end += 2
    return len(data) >= end


def _gzip_decoder() -> tuple[Callable[[], Any], Any]:
    if igzip is None:
        return _ZlibDecoder, zlib.error
    return lambda: igzip.IgzipDecompressor(flag=igzip.DECOMP_GZIP), igzip.IsalError


class _ZlibDecoder:
    """zlib with the interface of igzip's decoder."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(31)
        self._tail = b""

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self._tail and not self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        chunk = self._decoder.decompress(self._tail + data, max_length)
        self._tail = self._decoder.unconsumed_tail
        return chunk


def _unzstd(read: Read, budget: Budget) -> Iterator[bytes]:
    """All frames of a zstd stream, skippable ones included (RFC 8878).

    libzstd 1.5.7 does not hold a frame against its declared size when an empty last block comes in a piece of its
    own, so that is done here.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=budget.zstd_window_bytes)
    decoder = None
    declared = produced = 0
    for piece in zstd_pieces(read):
        try:
            if decoder is None:
                decoder = decompressor.decompressobj()
                declared, produced = zstandard.frame_content_size(piece), 0
            chunk = decoder.decompress(piece)
        except zstandard.ZstdError as error:
            if "too much memory" in str(error):
                budget.exceeded("zstd_window_bytes", "bytes of zstd window")
            raise Corrupt(f"zstd stream is damaged: {error}", code="layer-compression") from error
        produced += len(chunk)
        if decoder.eof:
            decoder = None
            if declared not in (_NOT_DECLARED, produced):
                raise Corrupt(
                    f"zstd stream is damaged: a frame of {declared} bytes holds {produced}", code="layer-compression"
                )
        if chunk:
            yield chunk
