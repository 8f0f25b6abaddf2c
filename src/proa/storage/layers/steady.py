"""Files that must not change while they are packed: an archive names the size before the content."""

from __future__ import annotations

import os
from collections.abc import Iterator

from proa.errors import Conflict
from proa.storage.layers.names import display
from proa.storage.layers.zeros import ZEROS, data_runs

__all__ = ["PIECE", "changed", "content"]

PIECE = 256 << 10


def content(fd: int, size: int, name: bytes) -> Iterator[bytes]:
    """Exactly `size` bytes in pieces, whatever is appended meanwhile. Raises Conflict when there are fewer.

    Holes are not read.
    """
    position = 0
    for start, end in data_runs(fd, size):
        yield from _zeros(start - position)
        position = start
        while position < end:
            piece = os.pread(fd, min(end - position, PIECE), position)
            if not piece:
                raise changed(name)
            position += len(piece)
            yield piece
    if position < size and os.fstat(fd).st_size < size:
        raise changed(name)
    yield from _zeros(size - position)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        piece = ZEROS if count >= len(ZEROS) else ZEROS[:count]
        count -= len(piece)
        yield piece


def changed(name: bytes) -> Conflict:
    """The failure of a file that is not any more what it was."""
    return Conflict(
        f"{display(name)!r} changed while it was read",
        code="file-changed",
        subject=display(name),
        hint="pause the container or try again",
    )
