"""What may be uploaded: bytes, a file by its path, an open file, or pieces."""

from __future__ import annotations

import os
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
    elif isinstance(source, Path) and source.is_dir():
        yield from pack_directory(str(source))
    elif isinstance(source, Path):
        with source.open("rb") as file:
            yield from pieces(file)
    elif hasattr(source, "read"):
        while data := source.read(_PIECE):
            yield data
    else:
        yield from source


def pack_directory(path: str, name: str = "") -> Iterator[bytes]:
    """The images in a directory as an archive: an OCI layout (all of it, or the image `name`), or skopeo's `dir:`.

    Raises Invalid when it is neither.
    """
    from proa.client.layouts import pack_flat, pack_layout

    flat = os.path.exists(os.path.join(path, "version")) and os.path.exists(os.path.join(path, "manifest.json"))
    yield from pack_flat(path) if flat else pack_layout(path, name)
