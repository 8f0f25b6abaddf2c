"""The bytes of a tar stream that may be compressed: gzip and zstd as layers are, bzip2 and xz for old archives."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Iterator
from typing import BinaryIO

from proa.errors import Corrupt
from proa.storage.layers.budget import DEFAULT_BUDGET, Budget, exceeded
from proa.storage.layers.decompress import CHUNK, decompress

_MAGICS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
# What `xz -9` needs to be read, with little room.
_XZ_MEMORY = 68 << 20
_PIECE = 64 << 10


def tar_chunks(stream: BinaryIO, budget: Budget = DEFAULT_BUDGET) -> Iterator[bytes]:
    """The uncompressed bytes of `stream` in chunks of at most CHUNK or so. Raises Corrupt, Exhausted (a bomb)."""
    head = b""
    while len(head) < 6 and (piece := stream.read(CHUNK)):
        head += piece
    for magic, name in _MAGICS.items():
        if head.startswith(magic):
            return _old_chunks(name, head, stream, budget)
    rest = [head] if head else []
    return decompress("auto", lambda size: rest.pop() if rest else stream.read(size), budget)


def _old_chunks(name: str, head: bytes, stream: BinaryIO, budget: Budget) -> Iterator[bytes]:
    """bzip2 and xz in bounded steps: their bombs reach 200,000 to 1."""

    def make() -> bz2.BZ2Decompressor | lzma.LZMADecompressor:
        return bz2.BZ2Decompressor() if name == "bzip2" else lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    decoder, data, consumed, produced = make(), head, len(head), 0
    floor = budget.ratio_floor_bytes // 2  # they are slow: half the bytes cost the time
    try:
        while True:
            while not decoder.eof:
                chunk = decoder.decompress(data, CHUNK)
                data = b""
                produced += len(chunk)
                if produced > floor and produced > consumed * budget.ratio:
                    exceeded("times the compressed size", budget.ratio)
                if chunk:
                    yield chunk
                if decoder.needs_input and not decoder.eof:
                    data = stream.read(_PIECE)
                    consumed += len(data)
                    if not data:
                        raise Corrupt(f"{name} stream is truncated", code="archive-compression")
            # Streams may be concatenated; xz also pads them with zeros.
            data = decoder.unused_data or stream.read(_PIECE)
            data = data.lstrip(b"\0") if name == "xz" else data
            if not data:
                return
            decoder = make()
    except (OSError, lzma.LZMAError, ValueError) as e:
        raise Corrupt(f"{name} stream is damaged: {e}", code="archive-compression") from e
