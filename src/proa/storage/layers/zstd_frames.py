"""Cut a zstd stream where its blocks end, so that a decoder fed piece by piece gives one block at a time.

A block of four bytes can come to 128 KiB, and the decoder hands out all that a piece of input comes to: 64 KiB of such
blocks would be 2 GiB at once. Source: RFC 8878 sections 3.1.1 (frames, blocks) and 3.1.2 (skippable frames).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from proa.errors import Corrupt

__all__ = ["zstd_pieces"]

_MAGIC = b"\x28\xb5\x2f\xfd"
_BLOCK = 128 << 10
_READ = 64 << 10


class _Source:
    """Bytes by exact counts."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = bytearray()

    def peek(self, count: int) -> bytes:
        """Up to `count` bytes that stay."""
        while len(self._buffer) < count and (more := self._read(_READ)):
            self._buffer += more
        return bytes(self._buffer[:count])

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes. Raises Corrupt."""
        piece = self.peek(count)
        if len(piece) < count:
            raise Corrupt("zstd stream is truncated", code="layer-compression")
        del self._buffer[:count]
        return piece


def zstd_pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Frame headers, blocks and checksums, one a piece; skippable frames are skipped. At least one frame is there.

    Raises Corrupt: empty, truncated, followed by something else, a block that is too large.
    """
    source = _Source(read)
    head = source.peek(4)
    if not head:
        raise Corrupt("zstd stream is empty", code="layer-compression")
    while head:
        if head == _MAGIC:
            yield from _frame(source)
        elif head[1:] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
            left = int.from_bytes(source.take(8)[4:], "little")
            while left:
                left -= len(source.take(min(left, _READ)))
        elif len(head) < 4 and _MAGIC.startswith(head):
            raise Corrupt("zstd stream is truncated", code="layer-compression")
        else:
            raise Corrupt("zstd stream is followed by something else", code="layer-compression")
        head = source.peek(4)


def _frame(source: _Source) -> Iterator[bytes]:
    descriptor = source.peek(5)[-1] if len(source.peek(5)) == 5 else 0
    one_segment = descriptor >> 5 & 1
    size_bytes = (one_segment, 2, 4, 8)[descriptor >> 6]
    yield source.take(6 - one_segment + (0, 1, 2, 4)[descriptor & 3] + size_bytes)
    last = 0
    while not last:
        header = int.from_bytes(source.take(3), "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        content = 1 if kind == 1 else size
        # An empty compressed block is none (RFC 8878 section 3.1.1.3); libzstd 1.5.7 takes it when it comes by itself.
        if size > _BLOCK or kind == 3 or (kind == 2 and not size):
            raise Corrupt("zstd stream is damaged: no such block", code="layer-compression")
        yield header.to_bytes(3, "little") + source.take(content)
    if descriptor >> 2 & 1:
        yield source.take(4)
