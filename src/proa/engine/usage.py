"""Disk usage: what the files of the data root occupy, by what they are for; the sum is what du(1) finds there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from proa.engine.types import ImageRecord
from proa.errors import NotFound, ProaError
from proa.oci import Digest, chain_ids
from proa.storage import Storage
from proa.storage.collect import CONTAINER_PREFIX, Marks
from proa.storage.disk_usage import disk_usage

if TYPE_CHECKING:
    from proa.engine.engine import Engine


class Share(msgspec.Struct, rename="pascal", kw_only=True):
    """One kind of object: how many, how many in use, bytes on disk, and bytes that pruning would free."""

    total_count: int = 0
    active: int = 0
    size: int = 0
    reclaimable: int = 0


class DiskUsage(msgspec.Struct, rename="pascal", kw_only=True):
    """Allocated bytes of the data root. The four shares add up to `total`.

    images:  blobs, unpacked layers and names        containers: records, logs and writable layers
    volumes: data and records                        engine: index, partial downloads, what waits for deletion …
    by_volume: bytes of each volume's data; -1 of one that lies elsewhere
    """

    images: Share
    containers: Share
    volumes: Share
    engine: Share
    total: int
    by_volume: dict[str, int]


def measure(engine: Engine) -> DiskUsage:
    """Walk the data root. What changes meanwhile is counted as it was when it was reached."""
    images, containers, volumes, rest = Share(), Share(), Share(), Share()
    by_volume: dict[str, int] = {}
    rest.size = _own(engine.root)
    keep = _in_use(engine)
    running = {e.record.id for e in engine.catalog if e.record.state.running}
    for name in os.listdir(engine.root):
        path = f"{engine.root}/{name}"
        if name == "content":
            _add_content(path, keep, images, rest)
        elif name == "snapshots":
            _add_snapshots(engine.storage, path, keep, running, images, containers, rest)
        elif name == "images":
            images.size += _allocated(path)
        elif name == "containers":
            containers.size += _own(path)
            for id in _names(path):  # noqa: A001
                size = _allocated(f"{path}/{id}")
                containers.size += size
                containers.reclaimable += size if id not in running else 0
        elif name == "volumes":
            volumes.size += _own(path)
            for volume in _names(path):
                size = _allocated(f"{path}/{volume}")
                by_volume[volume] = engine.volumes.size_bytes(engine.volumes.get(volume))
                volumes.size += size
                volumes.reclaimable += 0 if engine.volumes.users(volume) else size
        else:
            rest.size += _allocated(path)
    records = engine.images.list()
    images.total_count, images.active = len(records), sum(1 for r in records if r.containers)
    containers.total_count, containers.active = sum(1 for _ in engine.catalog), len(running)
    volumes.total_count, volumes.active = len(by_volume), sum(1 for v in by_volume if engine.volumes.users(v))
    return DiskUsage(
        images=images,
        containers=containers,
        volumes=volumes,
        engine=rest,
        total=images.size + containers.size + volumes.size + rest.size,
        by_volume=by_volume,
    )


def shared_sizes(storage: Storage, records: Iterable[ImageRecord]) -> dict[str, int]:
    """By image ID, how many bytes of an image's layers another image of `records` has as well."""
    chains = {record.id: chain_ids([Digest(d) for d in record.layers]) for record in records}
    users = Counter(chain for of_one in chains.values() for chain in of_one)
    out = {}
    for id, of_one in chains.items():  # noqa: A001
        out[id] = 0
        for chain in of_one:
            try:
                out[id] += storage.snapshots.usage(chain).size_bytes if users[chain] > 1 else 0
            except NotFound:
                continue
    return out


def _in_use(engine: Engine) -> Marks:
    """The content and layers that containers need."""
    marks = Marks(engine.storage.unobserved, engine.storage.edges)
    for entry in engine.catalog:
        try:
            marks.add(engine.images.load_manifest(entry.record.manifest, entry.record.image_id).descriptor)
        except ProaError:
            continue  # the image was removed by force
    return marks


def _add_content(path: str, keep: Marks, images: Share, rest: Share) -> None:
    rest.size += _own(path)
    for name in _names(path):
        if name != "blobs":
            rest.size += _allocated(f"{path}/{name}")
            continue
        images.size += _own(f"{path}/blobs")
        for algorithm in _names(f"{path}/blobs"):
            images.size += _own(f"{path}/blobs/{algorithm}")
            for hexadecimal in _names(f"{path}/blobs/{algorithm}"):
                size = _allocated(f"{path}/blobs/{algorithm}/{hexadecimal}")
                images.size += size
                images.reclaimable += 0 if f"{algorithm}:{hexadecimal}" in keep.digests else size


def _add_snapshots(
    storage: Storage, path: str, keep: Marks, running: set[str], images: Share, containers: Share, rest: Share
) -> None:
    known = storage.snapshots.directories()
    rest.size += _own(path)
    for name in _names(path):
        size = _allocated(f"{path}/{name}")
        found = known.get(name)
        if found is not None and found.kind == "committed":
            images.size += size
            images.reclaimable += 0 if found.key in keep.chains else size
        elif found is not None and found.key.startswith(CONTAINER_PREFIX):
            containers.size += size
            containers.reclaimable += 0 if found.key.removeprefix(CONTAINER_PREFIX) in running else size
        else:
            rest.size += size


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _own(path: str | os.PathLike[str]) -> int:
    try:
        return os.lstat(path).st_blocks * 512
    except FileNotFoundError:
        return 0


def _allocated(path: str) -> int:
    try:
        return disk_usage(path).size_bytes
    except FileNotFoundError:
        return 0
