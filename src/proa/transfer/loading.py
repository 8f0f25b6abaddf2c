"""Load and save: images between the store and an archive, as `docker load` and `docker save` do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import BinaryIO

from proa.errors import Invalid, NotFound
from proa.oci import Platform, parse_reference
from proa.storage import Image, Storage, unpack_image
from proa.storage.layers.decompress import decompress
from proa.transfer.archive_images import read_images
from proa.transfer.archive_members import read_members
from proa.transfer.archive_write import write_archive
from proa.transfer.early_layer import EarlyLayer
from proa.transfer.progress import Progress, ProgressEvent, short_id, silent
from proa.transfer.stored import Stored
from proa.transfer.stored_image import StoredImage, assign, read_image


def load(
    storage: Storage,
    stream: BinaryIO,
    progress: Progress = silent,
    *,
    platform: Platform | None = None,
    stopped: threading.Event | None = None,
) -> list[Image]:
    """Load every image of an archive: Docker's of any version or OCI, plain or compressed, from a stream.

    Manifests in an OCI archive are kept unchanged; for older archives one is made over the layers as they are. Names
    are taken from the archive and told by progress. Nothing is named unless all of the archive was good.
    Raises Invalid (no image archive, hostile), Corrupt, NotFound (incomplete), Exhausted, Cancelled.
    """
    with storage.leases.hold("load"), EarlyLayer(storage) as early:
        limits = storage.limits
        chunks = decompress("any", stream.read, limits.archive)
        members = read_members(chunks, Stored(storage.content, stopped), early, limits)
        archived = read_images(members, storage.content, platform)
        if not archived:
            raise Invalid("the archive has no image for this platform", code="archive-empty")
        read = [read_image(storage.content, image.descriptor) for image in archived]
        early.settle({image.config.rootfs.diff_ids[0] for image in read if image.config.rootfs.diff_ids})
        for image in read:
            _unpack(storage, image, progress)
        return [
            loaded
            for image, found in zip(read, archived, strict=True)
            for loaded in _name(storage, image, found.names, progress)
        ]


def save(storage: Storage, names: Sequence[str], out: BinaryIO, *, platform: Platform | None = None) -> None:
    """Write the images called `names` as one archive. A name is canonical, or a manifest digest for an unnamed image.

    The archive carries only the names asked for. Raises NotFound before the first byte is written, Corrupt.
    """
    with storage.leases.hold("save"):
        chosen: dict[str, tuple[StoredImage, list[str]]] = {}
        for name in names:
            image = read_image(storage.content, storage.images.get(name).descriptor, platform)
            tags = chosen.setdefault(image.descriptor.digest, (image, []))[1]
            if (tag := _tag(name)) and tag not in tags:
                tags.append(tag)
        write_archive(storage.content, list(chosen.values()), out)


def _tag(name: str) -> str | None:
    """A name as an archive may carry it: with a tag, not a digest."""
    if name.startswith(("sha256:", "sha512:")):
        return None
    reference = parse_reference(name)
    return name if reference.tag and not reference.digest else None


def _unpack(storage: Storage, image: StoredImage, progress: Progress) -> None:
    lines = {
        layer.digest: ProgressEvent(status="Loading layer", id=short_id(diff_id), current=layer.size, total=layer.size)
        for layer, diff_id in zip(image.manifest.layers, image.config.rootfs.diff_ids, strict=True)
    }

    def report(layer: object, status: str) -> None:
        if status == "unpacked":
            progress(lines[layer.digest])  # type: ignore[attr-defined]

    unpack_image(storage, image.config, image.manifest.layers, None, report)


def _name(storage: Storage, image: StoredImage, names: Sequence[str], progress: Progress) -> list[Image]:
    if not names:
        progress(ProgressEvent(message=f"Loaded image ID: {image.manifest.config.digest}\n"))
        return [storage.images.put(image.descriptor.digest, image.descriptor)]
    loaded = []
    for name in names:
        familiar = parse_reference(name).familiar
        try:
            before = read_image(storage.content, storage.images.get(name).descriptor).manifest.config.digest
        except NotFound:
            before = image.manifest.config.digest
        if before != image.manifest.config.digest:
            moved = f"The image {familiar} already exists, renaming the old one with ID {before} to empty string\n"
            progress(ProgressEvent(message=moved))
        loaded.append(assign(storage, name, image.descriptor))
        progress(ProgressEvent(message=f"Loaded image: {familiar}\n"))
    return loaded
