"""The content store: blobs by digest.

Words. A *blob* is bytes named by their digest; it says nothing about their meaning. An *ingest* is a blob being
written: it has a `ref` chosen by the writer (two writers of one thing should choose the same), bytes so far, and is
invisible to every other method until `commit`.

Life of a blob. `ingest(ref, expected)` opens or resumes; `write` appends and hashes; `commit` checks size and digest,
makes the bytes durable and only then gives them their name; from then on they never change until `delete`.
A writer that stops with `close`, or dies, leaves a partial that the next `ingest(ref)` continues at `.offset`.

    with store.ingest(f"layer-{d.digest}", d) as ingest:
        for chunk in fetch(d, start=ingest.offset):
            ingest.write(chunk)
        ingest.commit()

Reading while it grows. `Ingest.follow()` reads the bytes from the first one, also those of an earlier process, and
blocks for more. Its end of file is given only once size and digest are verified; when the ingest fails, read raises.

Readers verify. `open` returns a reader that hashes as it goes and raises Corrupt at the end when the bytes on disk
are no longer those of the digest; a use that must not begin on bad bytes reads with `read_blob`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import msgspec

from proa.errors import Corrupt, Invalid, NotFound
from proa.oci import Descriptor, Digest, Verifier


class BlobInfo(msgspec.Struct, frozen=True):
    """A committed blob: digest, size in bytes, and when it was committed (seconds since the epoch)."""

    digest: Digest
    size: int
    committed: float = 0.0


class IngestStatus(msgspec.Struct, frozen=True):
    """An ingest that is not committed: bytes so far, what was promised, last write (seconds since the epoch)."""

    ref: str
    offset: int
    expected: Descriptor | None
    updated: float


class Ingest(Protocol):
    """A blob being written by one thread at a time; a context manager that closes."""

    @property
    def ref(self) -> str:
        """The writer's name for it."""

    @property
    def offset(self) -> int:
        """How many bytes are there: where the next write goes."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append all of `data`, hashed in the calling thread. Raises Corrupt beyond the promised size, Exhausted."""

    def commit(self, size: int | None = None, digest: Digest | None = None) -> Digest:
        """Verify, make durable, name, and close. `size` and `digest` add to what `expected` promised.

        Committing what the store already has succeeds. Raises Corrupt: bytes with a wrong digest are dropped,
        bytes that are only too few stay for a later ingest of the same ref.
        """

    def follow(self) -> BinaryIO:
        """A reader of all bytes from the first, for another thread; it may return fewer bytes than asked, and none
        only at the end. Its read raises what commit raised, or Cancelled after close without commit."""

    def close(self) -> None:
        """Stop writing; what is there stays for a later ingest of the same ref. Harmless after commit."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class ContentStore(Protocol):
    """Blobs by digest. Thread-safe. Digests are checked for shape before they touch a path (Invalid)."""

    def info(self, digest: Digest) -> BlobInfo:
        """Size of a committed blob. Raises NotFound."""

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """A verifying reader of a committed blob, see above. Raises NotFound; Corrupt when the size already differs."""

    def ingest(self, ref: str, expected: Descriptor | None = None) -> Ingest:
        """Begin or resume writing. A partial that was begun for another digest is dropped first.

        Raises Unavailable when another writer has `ref` open.
        """

    def ingests(self) -> list[IngestStatus]:
        """What is being written or waits to be resumed."""

    def abort(self, ref: str) -> None:
        """Drop an ingest nobody has open. Raises NotFound, Unavailable."""

    def walk(self) -> Iterator[BlobInfo]:
        """Every committed blob, in no order."""

    def delete(self, digest: Digest) -> None:
        """Forget a blob; readers that have it open keep reading. Raises NotFound."""


def read_blob(content: ContentStore, descriptor: Descriptor, limit: int) -> bytes:
    """All bytes of a small blob, verified before any is returned.

    Raises NotFound, Corrupt, and Invalid when it is longer than `limit` bytes.
    """
    if descriptor.size > limit:
        raise Invalid(
            f"content {descriptor.digest} has {descriptor.size} bytes, at most {limit} are read",
            code="content-too-large",
            subject=descriptor.digest,
        )
    with content.open(descriptor) as reader:
        parts = []
        left = descriptor.size
        while left > 0:
            part = reader.read(left)
            if not part:
                break
            parts.append(part)
            left -= len(part)
        if reader.read(1):  # reaching the end is what makes the reader verify
            raise Corrupt(f"content {descriptor.digest} is longer than its {descriptor.size} bytes")
    return b"".join(parts)


def write_blob(content: ContentStore, data: bytes, media_type: str) -> Descriptor:
    """Store `data` and return its descriptor."""
    verifier = Verifier()
    verifier.update(data)
    descriptor = Descriptor(media_type=media_type, digest=verifier.digest, size=len(data))
    try:
        content.info(descriptor.digest)
    except NotFound:
        pass
    else:
        return descriptor
    # A ref of its own: whoever writes the same bytes at the same time need not wait.
    with content.ingest(f"blob-{descriptor.digest}-{secrets.token_hex(4)}", descriptor) as ingest:
        ingest.write(data)
        ingest.commit()
    return descriptor
