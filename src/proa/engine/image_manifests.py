"""The manifests behind an image: one, or those of an index with what is here of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from proa.engine.types import ImageRecord
from proa.errors import NotFound, ProaError
from proa.oci import (
    MANIFEST_LIMIT,
    Descriptor,
    Platform,
    chain_ids,
    is_platform_image,
    media_types,
    parse_digest,
    parse_index,
)
from proa.storage import Storage, read_blob
from proa.transfer import read_image

if TYPE_CHECKING:
    from proa.engine.catalog import Catalog


class ManifestSummary(msgspec.Struct, kw_only=True):
    """One manifest: kind is image, attestation or unknown; sizes are bytes of what is here, blobs and unpacked layers.

    image: the image ID, empty when its config is not here. available: whether all its blobs are.
    """

    descriptor: Descriptor
    kind: str
    platform: Platform | None = None
    image: str = ""
    available: bool = False
    content_size: int = 0
    unpacked_size: int = 0
    containers: list[str] = []


def manifest_summaries(storage: Storage, catalog: Catalog, record: ImageRecord) -> list[ManifestSummary]:
    """The manifests of an image's names, each once."""
    found: dict[str, ManifestSummary] = {}
    for name in record.names or [record.manifest]:
        try:
            descriptor = storage.images.get(name).descriptor
            children = [descriptor]
            if media_types.is_index(descriptor.media_type):
                raw = read_blob(storage.unobserved, descriptor, MANIFEST_LIMIT)
                children = list(parse_index(raw, descriptor.media_type).manifests)
        except ProaError:
            continue
        for child in children:
            if child.digest not in found:
                found[child.digest] = _summary(storage, catalog, child)
    return list(found.values())


def _summary(storage: Storage, catalog: Catalog, descriptor: Descriptor) -> ManifestSummary:
    attested = (descriptor.annotations or {}).get("vnd.docker.reference.type") == "attestation-manifest"
    kind = "image" if is_platform_image(descriptor) else "attestation" if attested else "unknown"
    out = ManifestSummary(descriptor=descriptor, kind=kind, platform=descriptor.platform)
    try:
        image = read_image(storage.unobserved, descriptor)
    except ProaError:
        return out  # not here, or no image
    out.image = image.manifest.config.digest
    out.platform = out.platform or image.config.platform
    sizes = [_stored(storage, d) for d in (descriptor, image.manifest.config, *image.manifest.layers)]
    out.available = None not in sizes
    out.content_size = sum(size or 0 for size in sizes)
    for chain in chain_ids(image.config.rootfs.diff_ids):
        try:
            out.unpacked_size += storage.snapshots.usage(chain).size_bytes
        except NotFound:
            break
    out.containers = [e.record.id for e in catalog if e.record.image_id == out.image]
    return out


def _stored(storage: Storage, descriptor: Descriptor) -> int | None:
    try:
        return storage.unobserved.info(parse_digest(descriptor.digest)).size
    except ProaError:
        return None
