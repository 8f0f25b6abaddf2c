"""What may be uploaded: bytes, a file by its path, an open file, or pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["Source", "pieces"]

_PIECE = 1 << 20

Source = bytes | Path | BinaryIO | Iterable[bytes]


def pieces(source: Source) -> Iterator[bytes]:
    """Its bytes, piece by piece."""
    if isinstance(source, bytes):
        yield from (source[start : start + _PIECE] for start in range(0, len(source), _PIECE))
    elif isinstance(source, Path):
        with source.open("rb") as file:
            yield from pieces(file)
    elif hasattr(source, "read"):
        while data := source.read(_PIECE):
            yield data
    else:
        yield from source
