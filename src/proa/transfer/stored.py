"""The content store as an end of copies: resuming downloads, each blob fetched once however many ask.

Several transfers that want one blob at the same time share a *flight*: the first downloads, the others wait for it;
when the first fails or is cancelled, one of the others goes on where it stopped. `Following` reads a blob that arrives.
"""

from __future__ import annotations

import io
import secrets
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Self, cast

from proa.errors import Cancelled, Corrupt, Internal, NotFound, ProaError, TimedOut, Unavailable
from proa.oci import CONFIG_LIMIT, MANIFEST_LIMIT, Descriptor, Digest, media_types
from proa.storage.content import ContentStore, Ingest, read_blob
from proa.transfer.ends import Advance, Source
from proa.transfer.transport import CHUNK

_POLL_S = 0.05
# A try that moved this many bytes was a good one: the count of failed tries begins anew.
PROGRESS = 1 << 20
_TURN_WAIT_S = 60.0


def _ignore(_count: int) -> None:
    pass


class _Flight:
    """One blob being downloaded by one thread of this process."""

    def __init__(self) -> None:
        self.ingest: Ingest | None = None
        self.landed = threading.Event()


# The flights of a store are shared by every Stored over it.
_FLIGHTS: weakref.WeakKeyDictionary[ContentStore, dict[Digest, _Flight]] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


class Stored:
    """Source and sink over a ContentStore, for one transfer. Content only: names are the image store's.

    The caller holds a lease while this is a sink, else a collection may take what was just written.
    """

    def __init__(self, content: ContentStore, stopped: threading.Event | None = None) -> None:
        self.content = content
        self.stopped = stopped or threading.Event()
        with _LOCK:
            self._flights = _FLIGHTS.setdefault(content, {})

    def resolve(self) -> Descriptor:
        """A store has no root of its own."""
        raise Internal("a content store names nothing: ask the image store")

    def read(self, descriptor: Descriptor) -> bytes:
        """See ends.Source."""
        manifest = media_types.is_document(descriptor.media_type)
        return read_blob(self.content, descriptor, MANIFEST_LIMIT if manifest else CONFIG_LIMIT)

    def open(self, descriptor: Descriptor, offset: int = 0) -> StoredStream:  # noqa: ARG002 (the seam's)
        """See ends.Source; reading verifies, so it always begins at the first byte."""
        return StoredStream(self.content.open(descriptor))

    def pause(self, tried: int, failure: ProaError) -> bool:  # noqa: ARG002 (the seam's)
        """A disk does not get better by waiting."""
        return False

    def exists(self, descriptor: Descriptor) -> bool:
        """True when the blob is there with its size. Raises Corrupt when its size is another."""
        try:
            found = self.content.info(descriptor.digest)
        except NotFound:
            return False
        if found.size != descriptor.size:
            raise Corrupt(
                f"{descriptor.digest} has {found.size} bytes, but a manifest says {descriptor.size}",
                code="size-mismatch",
                subject=descriptor.digest,
            )
        return True

    def write(self, descriptor: Descriptor, source: Source, advance: Advance) -> bool:
        """Download a blob, or wait for the transfer that already does. False when nothing had to be fetched."""
        while not self.exists(descriptor):
            with self._flight(descriptor, advance) as flight:
                if flight is not None:
                    self._download(flight, descriptor, source, advance)
                    return True
        return False

    def fetch(self, descriptor: Descriptor, source: Source) -> bytes:
        """A manifest, index or config: from here, else from `source` and then also here. Raises like `write`."""
        while not self.exists(descriptor):
            with self._flight(descriptor, _ignore) as flight:
                if flight is not None:
                    raw = source.read(descriptor)
                    self.put(descriptor, raw)
                    return raw
        return self.read(descriptor)

    @contextmanager
    def _flight(self, descriptor: Descriptor, advance: Advance) -> Iterator[_Flight | None]:
        """The flight of what is to be fetched by the caller; None after another transfer's has landed or failed."""
        self.check()
        with _LOCK:
            flight = self._flights.get(descriptor.digest)
            mine = flight is None
            if flight is None:
                flight = self._flights[descriptor.digest] = _Flight()
        if not mine:
            self._await(flight, advance)
            yield None
            return
        try:
            yield flight
        finally:
            with _LOCK:
                del self._flights[descriptor.digest]
            flight.landed.set()

    def replace(self, descriptor: Descriptor, source: Source) -> None:
        """Fetch a blob or document although there is one under its digest, which is damaged."""
        if media_types.is_document(descriptor.media_type):
            raw = source.read(descriptor)
            with self.begin(descriptor) as ingest:
                ingest.write(memoryview(raw)[ingest.offset :])
                ingest.commit()
        else:
            self._download(_Flight(), descriptor, source, _ignore)

    def put(self, descriptor: Descriptor, raw: bytes) -> None:
        """Store a small document under its digest."""
        if self.exists(descriptor):
            return
        with self.begin(descriptor) as ingest:
            ingest.write(memoryview(raw)[ingest.offset :])
            ingest.commit()

    def tag(self, descriptor: Descriptor, raw: bytes) -> None:
        """Content has no names: the same as `put`."""
        self.put(descriptor, raw)

    def stop(self) -> None:
        """See ends."""
        self.stopped.set()

    def check(self) -> None:
        """Raise Cancelled once stopped."""
        if self.stopped.is_set():
            raise Cancelled("the transfer was cancelled", code="cancelled")

    def _await(self, flight: _Flight, advance: Advance) -> None:
        while not flight.landed.wait(_POLL_S):
            self.check()
            if (ingest := flight.ingest) is not None:
                advance(ingest.offset)

    def _download(self, flight: _Flight, descriptor: Descriptor, source: Source, advance: Advance) -> None:
        for last in (False, True):
            with self.begin(descriptor) as ingest:
                resumed = ingest.offset > 0
                flight.ingest = ingest
                try:
                    self._fill(ingest, descriptor, source, advance)
                    ingest.commit()
                    return
                except Corrupt:
                    if last or not resumed:
                        ingest.close()
                        self.drop(ingest.ref)
                        raise
            # What an earlier transfer left was bad: begin once more without it.
            self.drop(ingest.ref)

    def _fill(self, ingest: Ingest, descriptor: Descriptor, source: Source, advance: Advance) -> None:
        tried = 0
        while ingest.offset < descriptor.size:
            start = ingest.offset
            try:
                with source.open(descriptor, start) as stream:
                    skip = start - stream.offset
                    while chunk := stream.read(CHUNK):
                        self.check()
                        if skip:
                            used = min(skip, len(chunk))
                            skip -= used
                            chunk = chunk[used:]
                        ingest.write(chunk)
                        advance(ingest.offset)
                if ingest.offset < descriptor.size:
                    raise Unavailable(
                        f"download of {descriptor.digest} ended after {ingest.offset} of {descriptor.size} bytes",
                        code="download-truncated",
                        subject=descriptor.digest,
                        temporary=True,
                    )
            except (Unavailable, TimedOut) as e:
                tried = 0 if ingest.offset - start >= PROGRESS else tried
                if not e.fields.get("temporary") or not source.pause(tried, e):
                    raise
                tried += 1

    def begin(self, descriptor: Descriptor) -> Ingest:
        """Begin or resume; another process that writes the same blob is waited for a while."""
        deadline = time.monotonic() + _TURN_WAIT_S
        while True:
            try:
                return self.content.ingest(f"blob-{descriptor.digest}", descriptor)
            except Unavailable as e:
                if e.code != "ingest-busy" or time.monotonic() > deadline:
                    raise
                self.check()
                time.sleep(_POLL_S)

    @contextmanager
    def begin_unknown(self, purpose: str) -> Iterator[Ingest]:
        """An ingest of bytes whose digest only their end will tell; nothing stays when it is not committed."""
        with self.content.ingest(f"{purpose}-{secrets.token_hex(8)}") as ingest:
            try:
                yield ingest
            except BaseException:
                ingest.close()
                self.drop(ingest.ref)
                raise

    def drop(self, ref: str) -> None:
        """Forget a partial that nobody should resume."""
        try:
            self.content.abort(ref)
        except (NotFound, Unavailable):
            pass

    def _arriving(self, descriptor: Descriptor) -> BinaryIO | None:
        """A reader of the flight in progress, or of the blob; None while there is neither."""
        with _LOCK:
            flight = self._flights.get(descriptor.digest)
        if flight is not None and (ingest := flight.ingest) is not None:
            try:
                return ingest.follow()
            except Internal:  # closed a moment ago
                return None
        if flight is None and self.exists(descriptor):
            return self.content.open(descriptor)
        return None


class StoredStream:
    """A blob's verifying reader as an ends.Stream."""

    offset = 0

    def __init__(self, reader: BinaryIO) -> None:
        self._reader = reader

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes. Raises Corrupt at the end of a blob that changed on disk."""
        return self._reader.read(size)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Following(io.RawIOBase):
    """Reads a blob of a Stored while it arrives; opened at the first read, which waits for the download to begin.

    broken:  True when reading failed because the download did, and not because the blob is bad in itself
    advance: told how many bytes each read returned
    """

    def __init__(self, stored: Stored, descriptor: Descriptor, advance: Advance = _ignore) -> None:
        super().__init__()
        self.broken = False
        self._advance = advance
        self._stored = stored
        self.descriptor = descriptor
        self._reader: BinaryIO | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` as far as bytes are there; 0 only at the verified end. Raises what the download raised."""
        try:
            reader = self._reader or self._begin()
            count = cast("int", reader.readinto(buffer))  # type: ignore[attr-defined]
            self._advance(count)
            return count
        except ProaError:
            self.broken = True
            raise

    def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.close()
        super().close()

    def _begin(self) -> BinaryIO:
        while True:
            self._stored.check()
            reader = self._stored._arriving(self.descriptor)
            if reader is not None:
                self._reader = reader
                return reader
            time.sleep(_POLL_S / 10)
