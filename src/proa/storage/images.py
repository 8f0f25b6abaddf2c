"""The image store: names to descriptors.

An *image* is a name that points to a descriptor of a manifest or an index; the bytes are in the content store. Names
are canonical reference strings (`docker.io/library/debian:12`), or the manifest's digest for an image without a name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from proa.errors import Corrupt, NotFound
from proa.oci import Descriptor, Digest, parse_digest
from proa.storage.index import Index
from proa.storage.locks import KeyedLocks
from proa.storage.records import Records


class Image(msgspec.Struct, frozen=True):
    """A name, what it points to, when the name was made and last pointed elsewhere (seconds since the epoch)."""

    name: str
    descriptor: Descriptor
    created: float
    updated: float


# In a name's record, not in a document: manifests of its index that are not to be kept for it, separated by spaces.
DROPPED = "org.proa.dropped"


def dropped(descriptor: Descriptor) -> frozenset[str]:
    """Digests of manifests that a name leaves out of the index it points to."""
    return frozenset((descriptor.annotations or {}).get(DROPPED, "").split())


class ImageStore(Protocol):
    """Names to descriptors. Thread-safe. What put and delete return from survives a power loss."""

    def get(self, name: str) -> Image:
        """Raises NotFound."""

    def put(self, name: str, descriptor: Descriptor) -> Image:
        """Make `name` point to `descriptor`, whether it existed or not. Raises Exhausted."""

    def delete(self, name: str) -> None:
        """Forget the name; content goes with the next collection. Raises NotFound."""

    def walk(self) -> Iterator[Image]:
        """Every image as of now, by name."""


class Pins(Protocol):
    """What `leases.Leases` offers to whoever names a descriptor."""

    def pin(self, descriptor: Descriptor) -> AbstractContextManager[None]:
        """Keep it from a collection that is under way."""


class FileImageStore:
    """See ImageStore: one durable record per name, and an index of them."""

    def __init__(self, directory: Path, index: Index, pins: Pins) -> None:
        self._records = Records(directory, Image)
        self._index = index
        self._pins = pins
        self._names = KeyedLocks()
        self.damaged: list[str] = []
        self._records.tidy()
        self.fill()

    def fill(self) -> None:
        """Make the index's table from the records, unless it is there."""
        table = "name TEXT PRIMARY KEY, digest TEXT NOT NULL, document BLOB NOT NULL"
        if self._index.define("images", table, "digest"):
            self._rebuild()

    def get(self, name: str) -> Image:
        """Raises NotFound."""
        rows = self._index.read("SELECT document FROM images WHERE name=?", (name,))
        if not rows:
            raise NotFound(f"No such image: {name}", code="image-not-found", subject=name)
        return msgspec.json.decode(rows[0][0], type=Image)

    def put(self, name: str, descriptor: Descriptor) -> Image:
        """Raises Exhausted, Invalid when the descriptor's digest is none."""
        parse_digest(descriptor.digest)
        with self._names.hold(name), self._pins.pin(descriptor):
            now = time.time()
            try:
                before = self.get(name)
            except NotFound:
                image = Image(name, descriptor, now, now)
            else:
                image = Image(name, descriptor, before.created, now)
            with self._kept_in_step(name):
                self._records.put(name, image)
            self._insert([image])
        return image

    def delete(self, name: str) -> None:
        """Raises NotFound."""
        with self._names.hold(name):
            self.get(name)
            with self._kept_in_step(name):
                self._records.delete(name)
            self._forget(name)

    def walk(self) -> Iterator[Image]:
        """A list as of now."""
        for (document,) in self._index.read("SELECT document FROM images ORDER BY name"):
            yield msgspec.json.decode(document, type=Image)

    def find(self, digest: Digest) -> list[Image]:
        """Every image whose descriptor has this digest, by name."""
        rows = self._index.read("SELECT document FROM images WHERE digest=? ORDER BY name", (digest,))
        return [msgspec.json.decode(document, type=Image) for (document,) in rows]

    @contextmanager
    def _kept_in_step(self, name: str) -> Iterator[None]:
        """Should changing the record fail half-way, the index is made to show what then is on disk."""
        try:
            yield
        except BaseException:
            try:
                self._insert([self._records.get(name)])
            except (NotFound, Corrupt):
                self._forget(name)
            raise

    def _forget(self, name: str) -> None:
        with self._index.write() as write:
            write.execute("DELETE FROM images WHERE name=?", (name,))

    def path(self, name: str) -> Path:
        """The record of `name`."""
        return self._records.path(name)

    def disagreement(self, name: str) -> str:
        """How the index differs from the record of `name`, while nobody writes either; empty when it does not."""
        with self._names.hold(name):
            record = row = None
            try:
                record = self._records.get(name)
            except NotFound:
                pass
            except Corrupt:
                return ""
            try:
                row = self.get(name)
            except NotFound:
                pass
        if record == row:
            return ""
        if record is None:
            return "the file is missing"
        return "its row is not its record" if row is not None else "the index has no row for it"

    def restore(self, image: Image) -> None:
        """Write record and row of `image` as they were. Raises Exhausted."""
        with self._names.hold(image.name), self._pins.pin(image.descriptor):
            self._records.put(image.name, image)
            self._insert([image])

    def _insert(self, images: list[Image]) -> None:
        with self._index.write() as write:
            write.executemany(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?)",
                [(i.name, i.descriptor.digest, msgspec.json.encode(i)) for i in images],
            )

    def _rebuild(self) -> None:
        images = []
        for path, image in self._records.walk():
            if isinstance(image, Corrupt):
                self.damaged.append(str(path))
            else:
                images.append(image)
        self._insert(images)
