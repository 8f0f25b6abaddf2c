"""Compress a layer while both its digests are taken: one pass for commit and push."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self, cast

from proa.oci import Digest
from proa.storage.layers.archive import Sink
from proa.storage.layers.encoders import Compression, Encoder, make_encoder

__all__ = ["CompressedLayer", "CompressedLayerWriter", "compressing"]


class CompressedLayer(NamedTuple):
    """diff_id: of the uncompressed archive, tar_bytes long. digest: of what was written, size bytes."""

    diff_id: Digest
    digest: Digest
    size: int
    tar_bytes: int


class CompressedLayerWriter:
    """A sink that compresses an archive into another sink; see encoders.make_encoder. Not thread-safe."""

    def __init__(self, out: Sink, compression: str = "gzip", level: int | None = None) -> None:
        self._out = out
        self._encoder = make_encoder(Compression(compression, level))
        self._plain = hashlib.sha256()
        self._packed = hashlib.sha256()
        self._tar_bytes = 0
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.finish()

    def write(self, data: bytes, /) -> int:
        """Add bytes of the uncompressed archive."""
        self._plain.update(data)
        self._tar_bytes += len(data)
        self._emit(self._encoder.compress(data) if self._encoder else data)
        return len(data)

    def finish(self) -> CompressedLayer:
        """Write what is still held back; later calls return the same."""
        if self._encoder is not None:
            encoder, self._encoder = self._encoder, None
            self._emit(encoder.flush())
        return CompressedLayer(self.diff_id, Digest("sha256:" + self._packed.hexdigest()), self._size, self._tar_bytes)

    @property
    def diff_id(self) -> Digest:
        """Digest of the uncompressed bytes so far."""
        return Digest("sha256:" + self._plain.hexdigest())

    def _emit(self, data: bytes) -> None:
        if data:
            self._packed.update(data)
            self._size += len(data)
            self._out.write(data)


class _Packed(io.RawIOBase):
    """A file that compresses into another."""

    def __init__(self, out: BinaryIO, encoder: Encoder) -> None:
        super().__init__()
        self._out = out
        self._encoder = encoder

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any, /) -> int:
        """Take all of `data`."""
        self._out.write(self._encoder.compress(data))
        return len(data)

    def finish(self) -> None:
        """Write what is still held back."""
        self._out.write(self._encoder.flush())


@contextmanager
def compressing(out: BinaryIO, compression: Compression) -> Iterator[BinaryIO]:
    """A file whose bytes arrive compressed in `out`; `out` itself for "none"."""
    encoder = make_encoder(compression)
    if encoder is None:
        yield out
        return
    packed = _Packed(out, encoder)
    yield cast("BinaryIO", packed)
    packed.finish()
