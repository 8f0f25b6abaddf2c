"""Compress with all processors: gzip in independent blocks, as pigz does, and zstd by its own threads.

The same input gives the same bytes whatever the number of processors: blocks have a fixed size. An encoder has
`compress(data) -> bytes` and `flush() -> bytes`, like those of zlib.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import zstandard

from proa.errors import Invalid
from proa.storage.layers.zeros import ZEROS

isal: Any
try:
    from isal import isal_zlib as isal
except ImportError:  # no wheel for this machine: the standard library is slower, not different
    isal = None

__all__ = ["GZIP", "Compression", "Encoder", "ParallelGzip", "make_encoder", "parse_compression"]

# No name, time 0, unknown system: RFC 1952 section 2.3.
_HEADER = bytes.fromhex("1f8b08000000000000ff")
# An empty last block of fixed codes ends the stream that the blocks before it left open (RFC 1951 section 3.2.3).
_END = b"\x03\x00"
# A block starts without history: at 1 MiB Debian's files pack 0.1 % larger than in one piece (measured).
_BLOCK = len(ZEROS)
_ISAL_LEVELS = 3
_FASTEST_WORTHWHILE = 2


class Compression(NamedTuple):
    """How layers are packed: format "gzip", "zstd" or "none", and the codec's level, None for the usual one."""

    format: str = "gzip"
    level: int | None = None


GZIP = Compression()


class Encoder(Protocol):
    """See the module."""

    def compress(self, data: bytes | memoryview, /) -> bytes:
        """Take `data`; some of the output."""

    def flush(self) -> bytes:
        """The rest of the output."""


def parse_compression(text: str) -> Compression:
    """`gzip`, `zstd`, `none`, or with a level `zstd:19`. Raises Invalid for others."""
    name, colon, level = text.partition(":")
    levels = {"gzip": range(10), "zstd": range(1, 23), "none": range(0)}.get(name)
    number = int(level) if level.isascii() and level.isdecimal() and len(level) < 4 else None
    if levels is None or (colon and number not in levels):
        raise Invalid(
            f"unknown compression {text[:40]!r}",
            code="compression-invalid",
            hint="gzip with a level of 0 to 9, zstd with one of 1 to 22, or none",
        )
    return Compression(name, number)


def make_encoder(compression: Compression, threads: int | None = None) -> Encoder | None:
    """An encoder that uses `threads` processors (default: all); None for no compression.

    gzip: 0 to 3 are isal's levels, which pack Debian 10 % larger than zlib's 6 in a tenth of the time and differ
    between processor generations; 4 to 9 are zlib's. Raises Invalid for a level there is not.
    """
    threads = threads or os.cpu_count() or 1
    format, level = compression  # noqa: A001 - the specification's word
    if format == "none" and level is None:
        return None
    if format == "gzip" and level in (None, *range(10)):
        return ParallelGzip(_FASTEST_WORTHWHILE if level is None else level, threads)
    if format == "zstd" and level in (None, *range(1, 23)):
        # Even with one processor in zstd's own threads: without them it makes other bytes.
        codec: Encoder = zstandard.ZstdCompressor(level=level or 3, write_checksum=True, threads=threads).compressobj()
        return codec
    raise Invalid(f"cannot compress a layer with {format!r} level {level}", code="layer-compression")


class ParallelGzip:
    """One gzip member of blocks that are packed side by side."""

    def __init__(self, level: int, threads: int) -> None:
        self._level = level
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gzip")
        self._ahead = 2 * threads
        self._queue: deque[Future[bytes]] = deque()
        self._part = bytearray(_BLOCK)
        self._filled = 0
        self._sum = 0
        self._size = 0
        self._head = _HEADER

    def compress(self, data: bytes | memoryview, /) -> bytes:
        """Take `data`, and wait when too much is under way."""
        self._sum = (isal or zlib).crc32(data, self._sum)
        self._size += len(data)
        view = memoryview(data)
        while view:
            taken = view[: _BLOCK - self._filled]
            self._part[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            view = view[len(taken) :]
            if self._filled == _BLOCK:
                # Looked at before it is copied: zeros go by at the speed of the check sums.
                zeros = ZEROS.startswith(self._part)
                self._queue.append(self._zeros if zeros else self._submit(bytes(self._part)))
                self._filled = 0
        out = [self._head]
        self._head = b""
        while self._queue and (len(self._queue) > self._ahead or self._queue[0].done()):
            out.append(self._queue.popleft().result())
        return b"".join(out)

    @cached_property
    def _zeros(self) -> Future[bytes]:
        """A block of holes: the same each time."""
        return self._submit(ZEROS)

    def _submit(self, block: bytes) -> Future[bytes]:
        return self._pool.submit(_deflate, block, self._level)

    def flush(self) -> bytes:
        """End the member."""
        out = [self._head]
        if self._filled:
            self._queue.append(self._submit(bytes(self._part[: self._filled])))
        out += [future.result() for future in self._queue]
        self._queue.clear()
        self._pool.shutdown()
        return b"".join([*out, _END, struct.pack("<II", self._sum, self._size & 0xFFFFFFFF)])


def _deflate(block: bytes, level: int) -> bytes:
    """A raw deflate stream that ends at a byte and is not finished."""
    if isal is not None and level <= _ISAL_LEVELS:
        codec = isal.compressobj(level, isal.DEFLATED, -15)
        return bytes(codec.compress(block) + codec.flush(isal.Z_SYNC_FLUSH))
    plain = zlib.compressobj(level, zlib.DEFLATED, -15)
    return plain.compress(block) + plain.flush(zlib.Z_SYNC_FLUSH)
