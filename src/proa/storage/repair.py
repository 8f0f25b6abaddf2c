"""Put right what `check` finds, from what is independent of it: memory, the index, a registry, the layer's blob."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proa.errors import Corrupt, NotFound, ProaError
from proa.oci import Descriptor, media_types, parse_digest
from proa.storage.check import Graph, Problem, key_of_record
from proa.storage.images import Image
from proa.storage.layers.inventory import compare, read_inventory
from proa.storage.paths import INVENTORY
from proa.storage.records import delete_record, read_record
from proa.storage.snapshots import upper_dir
from proa.storage.unpack import unpack_into

if TYPE_CHECKING:
    from proa.storage.store import Storage

# Brings a blob or document of one of the named images into the store again, whatever is there under its digest.
Fetch = Callable[[Descriptor, Sequence[str]], None]

_ID = re.compile(rb'"id":"([0-9a-z]{1,13})"')
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")


class Repair:
    """Repairs of one store. Each method says what was done, and raises ProaError when nothing could be.

    in_use: the running containers that have a layer (by chain ID) mounted.
    """

    def __init__(self, storage: Storage, graph: Graph, fetch: Fetch, in_use: Callable[[str], list[str]]) -> None:
        self._storage = storage
        self._graph = graph
        self._fetch = fetch
        self._in_use = in_use

    def apply(self, problem: Problem) -> None:
        """Do what can be done about `problem` and note it there."""
        act = {"record": self._record, "index": self._index, "blob": self._blob, "layer": self._layer}.get(problem.kind)
        if act is None:
            return
        try:
            problem.repaired = act(problem)
        except (ProaError, OSError) as error:
            problem.hint = problem.hint or getattr(error, "hint", "") or str(error)

    def _record(self, problem: Problem) -> str:
        path = Path(problem.subject)
        storage = self._storage
        if path.parent == storage.paths.images:
            return self._image_record(path)
        if storage.snapshots.restore_record(path):
            return "written again"
        if path.parent == storage.paths.committed:
            name = key_of_record(str(path))
            origin = self._graph.chains.get(name)
            seen = _ID.search(path.read_bytes())
            entry_id = seen[1].decode() if seen else ""
            if origin is not None and storage.snapshots.adopt(name, origin[0].parent, entry_id):
                return "made again"
            # Nobody's any more: the layer is unpacked again where an image needs it.
            delete_record(path)
            storage.snapshots.damaged = [d for d in storage.snapshots.damaged if d != str(path)]
            return "removed"
        raise Corrupt("nothing is left to make it from")

    def _image_record(self, path: Path) -> str:
        images = self._storage.images
        name = key_of_record(str(path))
        try:
            image = images.get(name)
        except NotFound:
            image = self._salvage(path, name)
        images.restore(image)
        images.damaged = [d for d in images.damaged if d != str(path)]
        return "written again"

    def _salvage(self, path: Path, name: str) -> Image:
        """What the damaged record at `path` said, as far as its digest still leads to a manifest in the store."""
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            raw = b""
        for text in _DIGEST.findall(raw):
            digest = parse_digest(text.decode())
            try:
                size = self._storage.unobserved.info(digest).size
            except NotFound:
                continue
            with open(self._storage.unobserved.path(digest), "rb") as f:
                head = f.read(1 << 20)
            kinds = [kind for kind in (*media_types.MANIFESTS, *media_types.INDEXES) if kind.encode() in head[:300]]
            at = path.stat().st_mtime
            kind = kinds[0] if kinds else media_types.OCI_MANIFEST
            return Image(name, Descriptor(media_type=kind, digest=digest, size=size), at, at)
        raise Corrupt(
            f"what the name {name} pointed to is lost", code="record-corrupt", hint=f"get it again: `proa pull {name}`"
        )

    def _index(self, problem: Problem) -> str:
        if problem.subject == str(self._storage.paths.index):
            self._storage.index.reset()
            self._storage.images.fill()
            return "made again from the records"
        images = self._storage.images
        path = images.path(problem.subject)
        images.restore(read_record(path, Image))
        return "made again from its record"

    def _blob(self, problem: Problem) -> str:
        known = self._graph.blobs.get(problem.subject)
        if known is None:
            self._storage.content.delete(parse_digest(problem.subject))
            return "removed, as nothing refers to it"
        self._fetch(known[0], sorted(set(known[1])))
        return "fetched again"

    def _layer(self, problem: Problem) -> str:
        chain = problem.subject
        origin = self._graph.chains.get(chain)
        if origin is None:
            raise NotFound("no image says how to unpack it again", hint="load or pull its image, and check again")
        layer, diff_id, parent = origin[0].layer, origin[0].diff_id, origin[0].parent
        storage = self._storage
        with storage.unpacking.hold(chain):
            key = f"unpack:repair:{secrets.token_hex(4)}"
            mounts = storage.snapshots.prepare(key, parent or None)
            try:
                usage = unpack_into(storage, layer, diff_id, mounts, admitted=True)
                fresh = Path(upper_dir(mounts))
                try:
                    tree = Path(storage.snapshots.lowers(chain)[0])
                except NotFound:
                    storage.snapshots.commit(chain, key, usage)
                    return "unpacked again"
                if not list(compare(tree, read_inventory(fresh.with_name(INVENTORY)))):
                    os.rename(fresh.with_name(INVENTORY), tree.with_name(INVENTORY))
                    return "its inventory written again, its files are right"
                if users := self._in_use(chain):
                    raise Corrupt(
                        "running containers use it", hint=f"stop {', '.join(users)} and check again: they use the layer"
                    )
                storage.snapshots.exchange(chain, key)
                return "unpacked again"
            finally:
                try:
                    storage.snapshots.remove(key)
                except NotFound:
                    pass
