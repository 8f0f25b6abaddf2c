"""The two ends of a copy: what can be read from, what can be written to.

A *source* gives a root descriptor, small documents whole, and blobs as streams that may start at an offset. A *sink*
takes blobs and documents, children before parents, and gets its name last:

    descriptor = source.resolve()
    raw = source.read(descriptor)                     # manifests and configs: verified before they are returned
    with source.open(layer, offset) as stream: ...    # blobs: verified by whoever writes them
    sink.write(layer, source, advance)                # may open several times, to resume or to begin again
    sink.put(descriptor, raw)

Ends are used by several threads at a time. `stop` makes every call in progress raise Cancelled soon.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from proa.errors import ProaError
from proa.oci import Descriptor


class Stream(Protocol):
    """Bytes of a blob from `offset` on, which may be less than was asked for: the reader skips the difference."""

    @property
    def offset(self) -> int:
        """Where in the blob the first byte of this stream is."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end. Raises Unavailable or TimedOut when the connection broke."""

    def close(self) -> None:
        """Stop reading."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...


Advance = Callable[[int], None]


class Source(Protocol):
    """Where content comes from."""

    def resolve(self) -> Descriptor:
        """The root of what this source was made for. Raises NotFound, Unauthorized, Denied, Unavailable."""

    def read(self, descriptor: Descriptor) -> bytes:
        """All bytes of a manifest, index or config, verified. Raises NotFound, Corrupt, Invalid (over its budget)."""

    def open(self, descriptor: Descriptor, offset: int = 0) -> Stream:
        """A blob from `offset` on. Raises NotFound, Corrupt (its size differs), Unavailable."""

    def pause(self, tried: int, failure: ProaError) -> bool:
        """Wait before try number `tried` + 2 after a temporary failure; False when there is to be none."""

    def stop(self) -> None:
        """Make calls in progress raise Cancelled. The source is of no further use."""


class Sink(Protocol):
    """Where content goes."""

    def exists(self, descriptor: Descriptor) -> bool:
        """True when the sink has it already."""

    def write(self, descriptor: Descriptor, source: Source, advance: Advance) -> bool:
        """Take a blob from `source`, False when it was there already; `advance` hears how many bytes are there.

        Raises Corrupt.
        """

    def put(self, descriptor: Descriptor, raw: bytes) -> None:
        """Take a manifest, index or config whose children are there."""

    def tag(self, descriptor: Descriptor, raw: bytes) -> None:
        """Take the root and give it the name this sink was made for: the last act of a copy."""

    def stop(self) -> None:
        """Make calls in progress raise Cancelled."""
