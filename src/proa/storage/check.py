"""Find what is not as it was written: records, the index, blobs, images with something missing, layers.

Everything is read from the disk and compared with what is independent of it: digests, checksums, a second copy, memory.
Nothing is changed here (see `repair`), nothing stops others: what goes away meanwhile was not damaged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from proa.errors import Corrupt, NotFound, ProaError
from proa.oci import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    Descriptor,
    Digest,
    chain_ids,
    children,
    host_platform,
    media_types,
    parse_config,
    parse_index,
    parse_manifest,
)
from proa.storage.content import BlobInfo, read_blob
from proa.storage.images import Image
from proa.storage.layers.inventory import compare, read_inventory
from proa.storage.paths import INVENTORY
from proa.storage.records import RECORD_LIMIT, file_name, is_sealed, key_of, read_record

if TYPE_CHECKING:
    from proa.storage.store import Storage

Kind = Literal["record", "index", "blob", "image", "layer"]
# (what is being looked at, how many are done, how many there are)
Progress = Callable[[str, int, int], None]

_PIECE = 1 << 20
_SHOWN = 20
# Hashing is the cost; beyond two threads a disk is.
_WIDTH = 2


class Problem(msgspec.Struct, kw_only=True):
    """One thing that is not as it was written.

    kind:     what it is; `image` is a name whose content is not all there
    subject:  the record's path, the digest, the chain ID, or the image's name
    detail:   what is wrong with it
    affected: images and containers that depend on it
    repaired: what was done about it; empty when nothing could be done
    hint:     what the user can do
    """

    kind: Kind
    subject: str
    detail: str
    affected: list[str] = []
    repaired: str = ""
    hint: str = ""


class LayerOrigin(msgspec.Struct, frozen=True):
    """How to make a snapshot again: the layer blob, what it unpacks to, and the chain ID it stands on."""

    layer: Descriptor
    diff_id: Digest
    parent: str


class Graph:
    """Which image needs which blob and snapshot, by the documents that can be read."""

    def __init__(self, storage: Storage) -> None:
        self._content = storage.unobserved
        self.blobs: dict[str, tuple[Descriptor, list[str]]] = {}
        self.chains: dict[str, tuple[LayerOrigin, list[str]]] = {}
        self.broken: dict[str, list[str]] = {}
        self.missing: dict[str, Descriptor] = {}
        # Chain IDs of this machine's platform: others are unpacked when a container wants them.
        self.unpacked: set[str] = set()
        for image in storage.images.walk():
            try:
                self._add(image.name, image.descriptor)
            except ProaError as error:
                self.broken.setdefault(image.name, []).append(error.message)

    def users(self, subject: str) -> list[str]:
        """Names of the images that need a digest or chain ID."""
        found = self.blobs.get(subject) or self.chains.get(subject)
        return sorted(set(found[1])) if found else []

    def _add(self, name: str, descriptor: Descriptor) -> None:
        self._note(name, descriptor)
        if not media_types.is_document(descriptor.media_type):
            return
        try:
            raw = read_blob(self._content, descriptor, MANIFEST_LIMIT)
            if media_types.is_index(descriptor.media_type):
                self._add_index(name, descriptor, raw)
                return
            for child in children(descriptor, raw):
                self._note(name, child)
                if not child.urls:
                    self._look_for(child)
            self._add_chains(name, descriptor, raw)
        except NotFound:
            self._look_for(descriptor)

    def _look_for(self, descriptor: Descriptor) -> None:
        try:
            self._content.info(descriptor.digest)
        except NotFound:
            self.missing[descriptor.digest] = descriptor

    def _add_index(self, name: str, descriptor: Descriptor, raw: bytes) -> None:
        present, manifests = 0, parse_index(raw, descriptor.media_type).manifests
        for child in manifests:
            try:
                self._content.info(child.digest)
            except NotFound:
                continue  # a platform that was not pulled
            present += 1
            self._add(name, child)
        if manifests and not present:
            raise Corrupt(f"no platform of {descriptor.digest} is in the store", code="content-missing")

    def _note(self, name: str, descriptor: Descriptor) -> None:
        self.blobs.setdefault(descriptor.digest, (descriptor, []))[1].append(name)

    def _add_chains(self, name: str, descriptor: Descriptor, raw: bytes) -> None:
        manifest = parse_manifest(raw, descriptor.media_type)
        if manifest.config.media_type not in (media_types.OCI_CONFIG, media_types.DOCKER_CONFIG):
            return  # an artifact
        config = parse_config(read_blob(self._content, manifest.config, CONFIG_LIMIT))
        diff_ids = config.rootfs.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise Corrupt(f"config {manifest.config.digest} does not fit its manifest", code="config-mismatch")
        parent = ""
        for layer, diff_id, chain in zip(manifest.layers, diff_ids, chain_ids(diff_ids), strict=True):
            self.chains.setdefault(chain, (LayerOrigin(layer, diff_id, parent), []))[1].append(name)
            parent = chain
            if config.platform.matches(host_platform()):
                self.unpacked.add(chain)


def check_records(storage: Storage, graph: Graph) -> Iterator[Problem]:
    """Names of images, and the records of snapshots."""
    yield from _image_records(storage)
    order = {chain: depth for depth, chain in enumerate(graph.chains)}  # a layer's parent before the layer
    for path, detail in sorted(storage.snapshots.audit(), key=lambda a: order.get(key_of_record(a[0]), -1)):
        yield Problem(kind="record", subject=path, detail=detail, affected=graph.users(key_of_record(path)))


def check_index(storage: Storage) -> Iterator[Problem]:
    """The index's file; its rows are compared by `check_records`."""
    for detail in storage.index.audit():
        yield Problem(kind="index", subject=str(storage.paths.index), detail=detail)


def check_images(storage: Storage, graph: Graph) -> Iterator[Problem]:
    """Blobs that images need and that are missing, and images that cannot be understood."""
    for digest in graph.missing:
        if users := still_named(storage, graph.users(digest)):
            yield Problem(kind="blob", subject=digest, detail="it is missing", affected=users)
    for name, details in graph.broken.items():
        yield Problem(kind="image", subject=name, detail="; ".join(dict.fromkeys(details)), affected=[name])


def still_named(storage: Storage, names: Sequence[str]) -> list[str]:
    """Those of the names that are still there: what goes with its last name was not lost."""
    return [name for name in names if _image(storage, name) is not None]


def _image(storage: Storage, name: str) -> Image | None:
    try:
        return storage.images.get(name)
    except NotFound:
        return None


def record_fault(path: Path) -> str:
    """What is wrong with the bytes of a record; empty when nothing is. Raises NotFound."""
    try:
        with open(path, "rb") as f:
            return "" if is_sealed(f.read(RECORD_LIMIT)) else "it has no checksum"
    except FileNotFoundError:
        raise NotFound(f"there is no record {path}", code="record-not-found") from None
    except ValueError as error:
        return str(error)


def key_of_record(path: str) -> str:
    """What the record at `path` is about: an image's name, a chain ID, a snapshot's key."""
    name = os.path.basename(path).removesuffix(".json")
    return key_of(name) or name


def _image_records(storage: Storage) -> Iterator[Problem]:
    """Each record against its own checksum, its file name, and the copy in the index."""
    indexed = {image.name: image for image in storage.images.walk()}
    for entry in sorted(os.listdir(storage.paths.images)):
        path = storage.paths.images / entry
        if not entry.endswith(".json") or entry.startswith("."):
            continue
        name = key_of_record(entry)
        try:
            detail = record_fault(path)
            image = read_record(path, Image)
        except NotFound:
            continue
        except Corrupt as error:
            indexed.pop(name, None)
            yield Problem(kind="record", subject=str(path), detail=error.message, affected=[name])
            continue
        indexed.pop(name, None)
        if file_name(image.name) + ".json" != entry:
            detail = f"it is the record of {image.name}"
        elif what := storage.images.disagreement(name):
            yield Problem(kind="index", subject=image.name, detail=what, affected=[name])
        if detail:
            yield Problem(kind="record", subject=str(path), detail=detail, affected=[name])
    for name in indexed:
        if what := storage.images.disagreement(name):
            yield Problem(kind="record", subject=str(storage.images.path(name)), detail=what, affected=[name])


def check_blobs(storage: Storage, graph: Graph, progress: Progress) -> Iterator[Problem]:
    """Every blob against its digest."""
    blobs = sorted(storage.content.walk(), key=lambda blob: blob.committed)

    def look(blob: BlobInfo) -> str:
        try:
            with storage.unobserved.open(Descriptor(media_type="", digest=blob.digest, size=blob.size)) as reader:
                while reader.read(_PIECE):
                    pass
        except NotFound:
            return ""  # collected meanwhile
        except Corrupt as error:
            return error.message
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        expected = graph.blobs.get(blob.digest)
        if expected is not None and expected[0].size != blob.size:
            return f"it has {blob.size} bytes, {expected[0].size} were promised"
        return ""

    with ThreadPoolExecutor(_WIDTH, "check") as pool:
        for done, (blob, detail) in enumerate(zip(blobs, pool.map(look, blobs), strict=True)):
            progress("blobs", done + 1, len(blobs))
            if detail:
                yield Problem(kind="blob", subject=blob.digest, detail=detail, affected=graph.users(blob.digest))


def check_layers(storage: Storage, graph: Graph, progress: Progress, *, quick: bool = False) -> Iterator[Problem]:
    """Every layer against its inventory, and that each is unpacked; quick: only the latter."""
    committed = {s.key for s in storage.snapshots.walk() if s.kind == "committed"}
    for chain in graph.chains:
        if chain in graph.unpacked and chain not in committed:
            yield Problem(kind="layer", subject=chain, detail="the layer is not unpacked", affected=graph.users(chain))
    if quick:
        return
    for done, chain in enumerate(sorted(committed)):
        progress("layers", done + 1, len(committed))
        try:
            tree = Path(storage.snapshots.lowers(chain)[0])
        except NotFound:
            continue  # collected meanwhile
        except Corrupt as error:
            yield Problem(kind="layer", subject=chain, detail=error.message, affected=graph.users(chain))
            continue
        detail = layer_fault(tree)
        if detail and chain in {s.key for s in storage.snapshots.walk()}:
            yield Problem(kind="layer", subject=chain, detail=detail, affected=graph.users(chain))


def layer_fault(tree: Path) -> str:
    """How the files at `tree` differ from the inventory beside them; empty when they do not."""
    try:
        differences = list(compare(tree, read_inventory(tree.with_name(INVENTORY))))
    except NotFound:
        return "it has no inventory to be checked against"
    except (Corrupt, OSError) as error:
        return str(error)
    shown = [f"/{path} ({what})" for path, what in differences[:_SHOWN]]
    more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    return ", ".join(shown) + more
