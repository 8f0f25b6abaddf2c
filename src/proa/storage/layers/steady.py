"""Files that must not change while they are packed: an archive names the size before the content."""

from __future__ import annotations

import os
from collections.abc import Iterator

from proa.errors import Conflict
from proa.storage.layers.names import display

__all__ = ["PIECE", "changed", "content"]

PIECE = 256 << 10


def content(fd: int, size: int, name: bytes) -> Iterator[bytes]:
    """Exactly `size` bytes in pieces, whatever is appended meanwhile. Raises Conflict when there are fewer."""
    while size:
        piece = os.read(fd, min(size, PIECE))
        if not piece:
            raise changed(name)
        size -= len(piece)
        yield piece


def changed(name: bytes) -> Conflict:
    """The failure of a file that is not any more what it was."""
    return Conflict(
        f"{display(name)!r} changed while it was read",
        code="file-changed",
        subject=display(name),
        hint="pause the container or try again",
    )
