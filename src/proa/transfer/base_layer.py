"""Unpack the first layer of an archive while it is being stored, before the archive has said which image it is of.

Documents of an archive mostly come last, and a lowest layer needs no parent: so the first layer that comes is unpacked
at once, as if it were a lowest one. For images of one layer, and archives in order, it is; otherwise the work is
thrown away, which cost a core that had nothing to do.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Collection
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from proa.errors import NotFound, ProaError
from proa.oci import Digest
from proa.storage import Storage, Usage, upper_dir
from proa.storage.content import Ingest
from proa.storage.paths import INVENTORY
from proa.storage.unpack import sync

# Less is unpacked faster than a worker starts.
WORTHWHILE = 1 << 20


class BaseLayer:
    """A context manager that leaves nothing behind but what `settle` committed."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._key = f"unpack:early:{secrets.token_hex(4)}"
        self._thread: threading.Thread | None = None
        self._diff_id: Digest | None = None
        self._usage: Usage | None = None
        self._useless = threading.Event()

    def begin(self, ingest: Ingest) -> None:
        """Follow `ingest`, unless another was begun before."""
        if self._thread is not None:
            return
        reader = ingest.follow()
        target = Path(upper_dir(self._storage.snapshots.prepare(self._key)))

        def unpack() -> None:
            try:
                with reader:
                    result = self._storage.unpacker.unpack(
                        reader,
                        "auto",
                        target,
                        inventory=target.with_name(INVENTORY),
                        meanwhile=partial(sync, target),
                        cancelled=self._useless,
                    )
                self._usage = Usage(result.size_bytes, result.inodes)
                self._diff_id = result.diff_id
            except (ProaError, OSError):
                pass  # unpacking it again, as what it turns out to be, says what is wrong

        self._thread = threading.Thread(target=unpack, name="base-layer")
        self._thread.start()

    def settle(self, lowest: Collection[Digest]) -> None:
        """Keep the layer if its diff_id is in `lowest`, those of the lowest layers of verified images."""
        if self._thread is None:
            return
        if all(self._is_there(diff_id) for diff_id in lowest):
            self._useless.set()
        self._thread.join()
        if self._diff_id is None or self._diff_id not in lowest:
            return
        snapshots = self._storage.snapshots
        with self._storage.unpacking.hold(self._diff_id):
            if not self._is_there(self._diff_id):
                snapshots.commit(self._diff_id, self._key, self._usage)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._thread is not None:
            self._useless.set()
            self._thread.join()
            try:
                self._storage.snapshots.remove(self._key)
            except NotFound:
                pass

    def _is_there(self, diff_id: Digest) -> bool:
        try:
            self._storage.snapshots.stat(diff_id)
        except NotFound:
            return False
        return True
