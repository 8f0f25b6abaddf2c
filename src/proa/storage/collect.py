"""Collection: delete what nothing refers to, while everything else goes on.

Roots are images, snapshots of containers, pinned descriptors and leases; edges are `oci.children`, the chain IDs in an
image's config, and the parents of snapshots. Marking reads; sweeping asks the leases before each deletion, so neither
stops anybody. What is found damaged or missing on the way ends that branch and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from proa.errors import Conflict, NotFound, ProaError, Unavailable
from proa.oci import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    Descriptor,
    Digest,
    chain_ids,
    children,
    media_types,
    parse_config,
)
from proa.storage.content import ContentStore, read_blob
from proa.storage.images import dropped
from proa.storage.leases import Sweep

if TYPE_CHECKING:
    from proa.storage.store import Storage

CONTAINER_PREFIX = "container:"
MOUNT_PREFIX = "mount:"


class Collected(msgspec.Struct):
    """What a collection removed: blobs and their bytes, snapshots and their bytes, ingests, expired leases."""

    blobs: int = 0
    blob_bytes: int = 0
    snapshots: int = 0
    snapshot_bytes: int = 0
    ingests: int = 0
    leases: int = 0


class Marks:
    """What is in use: digests and chain IDs, grown root by root. `edges` caches what immutable content refers to."""

    def __init__(self, content: ContentStore, edges: dict[Digest, tuple[Descriptor, ...]]) -> None:
        self._content = content
        self._edges = edges
        self.digests: set[str] = set()
        # Indexes of which only names that leave something out were seen.
        self._partial: set[str] = set()
        self.chains: set[str] = set()

    def add(self, root: Descriptor) -> None:
        """Mark `root` and everything below it."""
        without = dropped(root)
        pending = [root]
        while pending:
            d = pending.pop()
            if d.digest in self.digests and d.digest not in self._partial:
                continue
            if without and d is root and d.digest not in self.digests:
                self._partial.add(d.digest)
            elif not without:
                self._partial.discard(d.digest)
            self.digests.add(d.digest)
            pending += [child for child in self._children(d) if child.digest not in without]

    def _children(self, d: Descriptor) -> tuple[Descriptor, ...]:
        if not media_types.is_document(d.media_type):
            return ()
        found = self._edges.get(d.digest)
        if found is None:
            try:
                found = tuple(children(d, read_blob(self._content, d, MANIFEST_LIMIT)))
            except ProaError:  # not there (an index names platforms that were not pulled), or damaged
                return ()
            self._edges[d.digest] = found
        if media_types.is_manifest(d.media_type):
            self._add_chain(found[0])
        return found

    def _add_chain(self, config: Descriptor) -> None:
        try:
            diff_ids = parse_config(read_blob(self._content, config, CONFIG_LIMIT)).rootfs.diff_ids
        except ProaError:  # an artifact whose config is no image config
            return
        self.chains.update(chain_ids(diff_ids))


def collect(
    storage: Storage, roots: Iterable[Descriptor] = (), *, keep_interrupted_s: float | None = None
) -> Collected:
    """Delete what is neither reachable from the roots above, or `roots`, nor leased. Safe at any time, from any thread.

    keep_interrupted_s: how long a partial download that nobody writes stays to be resumed (default a day); 0 also
    drops what the leases of dead processes protect.
    """
    keep_s = 24 * 3600.0 if keep_interrupted_s is None else keep_interrupted_s
    out = Collected(leases=storage.leases.expire(all_interrupted=keep_s <= 0))
    with storage.collecting, storage.leases.sweeping() as sweep:
        # The directory listings come before the marks: what is added later is not on them.
        blobs = list(storage.content.walk())
        marks = Marks(storage.unobserved, storage.edges)
        for image in storage.images.walk():
            marks.add(image.descriptor)
        for root in roots:
            marks.add(root)
        _sweep_snapshots(storage, sweep, marks, out)
        for blob in blobs:
            if blob.digest in marks.digests:
                continue
            if _delete(sweep, marks, blob.digest, blob.committed, partial(storage.content.delete, blob.digest)):
                storage.edges.pop(blob.digest, None)
                out.blobs += 1
                out.blob_bytes += blob.size
        _sweep_ingests(storage, keep_s, out)
    storage.trash.retry()
    return out


def _delete(sweep: Sweep, marks: Marks, resource: str, born: float, delete: Callable[[], None]) -> bool:
    def still_garbage() -> bool:
        while sweep.fresh:
            marks.add(sweep.fresh.pop())
        return resource not in marks.digests and resource not in marks.chains

    try:
        return sweep.delete_unless_used(resource, born, delete, still_garbage)
    except (NotFound, Conflict):  # somebody else deleted it, or stands on it
        return False


def _sweep_snapshots(storage: Storage, sweep: Sweep, marks: Marks, out: Collected) -> None:
    snapshots = list(storage.snapshots.walk())
    leased_since = storage.leases.held_since()
    for s in snapshots:
        # An active snapshot that belongs to no container is an unpack or a build step that died half-way.
        if s.kind == "committed" or s.key.startswith((CONTAINER_PREFIX, MOUNT_PREFIX)) or s.created >= leased_since:
            continue
        if _delete(sweep, marks, s.key, s.created, partial(storage.snapshots.remove, s.key)):
            out.snapshots += 1
    parents = {s.key: s.parent for s in snapshots if s.kind == "committed"}
    born = {s.key: s.created for s in snapshots}
    pending = [k for k in parents if k not in marks.chains]
    # Children first; a parent gets its turn when its last child is gone.
    while pending:
        again: list[str] = []
        for key in pending:
            try:
                size = storage.snapshots.usage(key).size_bytes
            except NotFound:
                continue
            if _delete(sweep, marks, key, born[key], partial(storage.snapshots.remove, key)):
                out.snapshots += 1
                out.snapshot_bytes += size
                if parents[key] in parents and parents[key] not in marks.chains:
                    again.append(parents[key])
        pending = again


def _sweep_ingests(storage: Storage, keep_s: float, out: Collected) -> None:
    now = time.time()
    leased_since = storage.leases.held_since()
    for ingest in storage.content.ingests():
        if ingest.updated >= leased_since or now - ingest.updated < keep_s:
            continue
        try:
            storage.content.abort(ingest.ref)
            out.ingests += 1
        except (NotFound, Unavailable):
            continue
