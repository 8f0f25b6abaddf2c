"""Storage: one data root opened by its one writer."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from proa.oci import Descriptor, Digest, digest_of
from proa.storage.collect import Collected, collect
from proa.storage.content import write_blob
from proa.storage.images import FileImageStore
from proa.storage.index import Index
from proa.storage.leases import Leases
from proa.storage.limits import Limits
from proa.storage.local_content import LocalContentStore
from proa.storage.locks import KeyedLocks
from proa.storage.overlay import OverlaySnapshotter
from proa.storage.paths import Paths
from proa.storage.trash import Trash

if TYPE_CHECKING:
    from proa.storage.layers import Unpacker, Workers


class Storage:
    """Content, images, snapshots, leases and the index of one data root. Thread-safe; a context manager that closes.

    The caller holds `lock_root(root)` while a Storage of that root is open: two writers would not see each other.
    """

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.paths = Paths(root)
        self.paths.create()
        self.index = Index(self.paths.index)
        self.trash = Trash(self.paths.trash)
        self.leases = Leases(self.paths.leases)
        self.content = LocalContentStore(self.paths.blobs, self.paths.ingests, self.leases.touch)
        # The same blobs for the collection: its looking at them is no use, and it looks while it holds the lease lock.
        self.unobserved = LocalContentStore(self.paths.blobs, self.paths.ingests)
        self.images = FileImageStore(self.paths.images, self.index, self.leases)
        self.snapshots = OverlaySnapshotter(self.paths.snapshots, self.trash, self.leases.touch)
        self.content.tidy()
        self._discard_unpacks()
        # One unpack per chain ID at a time.
        self.unpacking = KeyedLocks()
        # One collection at a time; nothing else waits for it.
        self.collecting = threading.Lock()
        # What manifests and indexes refer to, by digest: they never change.
        self.edges: dict[Digest, tuple[Descriptor, ...]] = {}
        self._workers: Workers | None = None
        self._workers_lock = threading.Lock()
        self._unpacker: Unpacker | None = None
        self._unpacker_lock = threading.Lock()

    @classmethod
    def open(cls, root: Path, limits: Limits | None = None) -> Storage:
        """Open `root` (absolute), making what is missing and finishing what a crash interrupted.

        limits: what input may cost. Raises Invalid, Denied, Exhausted, OSError.
        """
        return cls(root, limits)

    @property
    def unpacker(self) -> Unpacker:
        """Applies layers in processes of their own; started by the first use."""
        with self._unpacker_lock:
            if self._unpacker is None:
                from proa.storage.layers import Unpacker

                self._unpacker = Unpacker(workers=self.workers, budget=self.limits.layer)
            return self._unpacker

    @property
    def workers(self) -> Workers:
        """Forks confined processes for layers and for visits of containers' roots; started by the first use."""
        with self._workers_lock:
            if self._workers is None:
                from proa.storage.layers import Workers

                self._workers = Workers()
            return self._workers

    @property
    def damaged(self) -> list[str]:
        """Records that could not be read, and snapshots whose parent is lost, as found at the start."""
        return [*self.images.damaged, *self.snapshots.damaged]

    def collect(self, roots: Iterable[Descriptor] = (), *, keep_interrupted_s: float | None = None) -> Collected:
        """Delete what nothing refers to, see collect.collect."""
        return collect(self, roots, keep_interrupted_s=keep_interrupted_s)

    def write_document(self, raw: bytes, media_type: str) -> Descriptor:
        """Store a document that users put together. Raises Invalid `too-large` for one that pulling would refuse."""
        descriptor = Descriptor(media_type=media_type, digest=digest_of(raw), size=len(raw))
        self.limits.admit(descriptor, raw)
        return write_blob(self.content, raw, media_type)

    def close(self) -> None:
        """Stop the unpacker, the background deletion and the index. Nothing is lost without it."""
        with self._unpacker_lock:
            if self._unpacker is not None:
                self._unpacker.close()
                self._unpacker = None
        with self._workers_lock:
            if self._workers is not None:
                self._workers.close()
                self._workers = None
        self.snapshots.close()
        self.trash.close()
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _discard_unpacks(self) -> None:
        # The process that unpacked is dead, or this one could not have the root.
        for s in list(self.snapshots.walk()):
            if s.kind == "active" and s.key.startswith("unpack:"):
                self.snapshots.remove(s.key)
