"""bzip2 and xz, as old archives of files come; layers never do."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator

from proa.errors import Corrupt
from proa.storage.layers.budget import Budget

__all__ = ["old_format", "old_pieces"]

_MAGICS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_CHUNK = 256 << 10
_PIECE = 64 << 10


def old_format(head: bytes) -> str:
    """`bzip2` or `xz` when a stream begins like that, else ""."""
    return next((name for magic, name in _MAGICS.items() if head.startswith(magic)), "")


def old_pieces(name: str, read: Callable[[int], bytes], budget: Budget) -> Iterator[bytes]:
    """The uncompressed stream in bounded steps: bombs reach 200,000 to 1. Raises Corrupt, Exhausted."""

    def make() -> bz2.BZ2Decompressor | lzma.LZMADecompressor:
        return bz2.BZ2Decompressor() if name == "bzip2" else lzma.LZMADecompressor(memlimit=budget.xz_memory_bytes)

    decoder, data, consumed, produced = make(), b"", 0, 0
    floor = budget.ratio_floor_bytes // 2  # they are slow: half the bytes cost the time
    try:
        while True:
            while not decoder.eof:
                if decoder.needs_input and not data:
                    data = read(_PIECE)
                    consumed += len(data)
                    if not data:
                        raise Corrupt(f"{name} stream is truncated", code="archive-compression")
                chunk = decoder.decompress(data, _CHUNK)
                data = b""
                produced += len(chunk)
                if produced > floor and produced > consumed * budget.ratio:
                    budget.exceeded("ratio", "times the compressed size")
                if chunk:
                    yield chunk
            # Streams may be concatenated; xz also pads them with zeros.
            data = decoder.unused_data
            while True:
                data = data.lstrip(b"\0") if name == "xz" else data
                if data:
                    break
                data = read(_PIECE)
                consumed += len(data)
                if not data:
                    return
            decoder = make()
    except lzma.LZMAError as e:
        if "Memory usage limit" in str(e):
            budget.exceeded("xz_memory_bytes", "bytes of memory to decode xz")
        raise Corrupt(f"{name} stream is damaged: {e}", code="archive-compression") from e
    except (OSError, ValueError) as e:
        raise Corrupt(f"{name} stream is damaged: {e}", code="archive-compression") from e
