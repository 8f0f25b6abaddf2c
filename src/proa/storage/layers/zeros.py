"""Runs of zeros: what holes of files read as, and what becomes holes again."""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["HOLE", "ZEROS", "data_runs", "is_hole"]

#: Less is not worth an extent of its own.
HOLE = 64 << 10
#: Every hole is given out as a part of these, so that nothing is read, copied or packed anew for it.
ZEROS = bytes(1 << 20)


def is_hole(piece: bytes | bytearray | memoryview) -> bool:
    """Whether a piece is nothing but zeros, and long enough. Costs nothing for data: the first byte decides mostly."""
    return HOLE <= len(piece) <= len(ZEROS) and ZEROS.startswith(piece)


def data_runs(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of what is no hole within the first `size` bytes, small holes included.

    One run where the file system knows of no holes.
    """
    if os.fstat(fd).st_blocks * 512 + HOLE > size:
        yield 0, size
        return
    begun = position = 0
    try:
        os.lseek(fd, 0, os.SEEK_HOLE)
    except OSError:  # EINVAL: it cannot tell
        position = size
    while position < size:
        try:
            start = min(os.lseek(fd, position, os.SEEK_DATA), size)
        except OSError:  # ENXIO: nothing more
            break
        if start - position >= HOLE or position == 0:
            if begun < position:
                yield begun, position
            begun = start
        position = min(os.lseek(fd, start, os.SEEK_HOLE), size) if start < size else size
    if begun < position:
        yield begun, position
