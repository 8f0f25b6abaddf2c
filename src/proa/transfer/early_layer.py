"""Unpack a layer while it is being stored, before anybody can say what it is.

A commit knows the layers below, and its own by its digest when the last byte is written. Documents of an archive mostly
come last, and a lowest layer needs no parent: so the first layer that comes is unpacked at once, as if it were a lowest
one. For images of one layer, and archives in order, it is; otherwise the work is thrown away, which cost a core that
had nothing to do.
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
from proa.oci import Digest, chain_id
from proa.storage import Storage, Usage, lower_dirs, upper_dir
from proa.storage.content import Ingest
from proa.storage.paths import INVENTORY
from proa.storage.unpack import sync

# Less is unpacked faster than a worker starts.
WORTHWHILE = 1 << 20


class EarlyLayer:
    """A context manager that leaves nothing behind but what `settle` committed. parent: the chain ID it stands on."""

    def __init__(self, storage: Storage, parent: str = "") -> None:
        self._storage = storage
        self._parent = Digest(parent)
        self._key = f"unpack:early:{secrets.token_hex(4)}"
        self._thread: threading.Thread | None = None
        self._own = False
        self._done = False
        self._diff_id = Digest("")
        self._usage: Usage | None = None
        self._useless = threading.Event()

    def begin(self, ingest: Ingest, *, own: str = "") -> None:
        """Follow `ingest`, unless another was begun before.

        own: the compression of a layer that this process makes; the ingest takes the digest of a plain one.
        """
        if self._thread is not None:
            return
        self._own = own == "none"
        reader = ingest.follow()
        mounts = self._storage.snapshots.prepare(self._key, self._parent)
        target = Path(upper_dir(mounts))
        parents = [Path(p) for p in lower_dirs(mounts)]

        def unpack() -> None:
            try:
                with reader:
                    result = self._storage.unpacker.unpack(
                        reader,
                        "trusted" if self._own else "auto",
                        target,
                        parents,
                        admitted=bool(own),
                        inventory=target.with_name(INVENTORY),
                        meanwhile=partial(sync, target),
                        cancelled=self._useless,
                    )
                self._usage = Usage(result.size_bytes, result.inodes)
                self._diff_id = result.diff_id
                self._done = True
            except (ProaError, OSError):
                pass  # unpacking it again, as what it turns out to be, says what is wrong

        self._thread = threading.Thread(target=unpack, name="early-layer")
        self._thread.start()

    def settle(self, wanted: Collection[Digest]) -> None:
        """Keep the layer if its diff_id is in `wanted`, those of layers of verified images that stand on the parent.

        One of our own is the one that is wanted.
        """
        if self._thread is None:
            return
        if all(self._is_there(chain_id(self._parent, diff_id)) for diff_id in wanted):
            self._useless.set()
        self._thread.join()
        if self._own:
            (self._diff_id,) = wanted
        if not self._done or self._diff_id not in wanted:
            return
        name = chain_id(self._parent, self._diff_id)
        with self._storage.unpacking.hold(name):
            if not self._is_there(name):
                self._storage.snapshots.commit(name, self._key, self._usage)

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

    def _is_there(self, name: Digest) -> bool:
        try:
            self._storage.snapshots.stat(name)
        except NotFound:
            return False
        return True
