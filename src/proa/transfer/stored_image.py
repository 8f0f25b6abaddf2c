"""Images as the store has them: read one with its documents, make one of layers, give one a name."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from proa.errors import NotFound, Unsupported
from proa.oci import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    Descriptor,
    Digest,
    ImageConfig,
    Manifest,
    Platform,
    check_config,
    encode,
    is_platform_image,
    media_types,
    parse_config,
    parse_index,
    parse_manifest,
    select_platform,
)
from proa.storage import Image, Storage
from proa.storage.content import ContentStore, read_blob, write_blob
from proa.storage.images import dropped

# On manifests of our own making whose layers are as they came: plain tars, to be compressed before others see them.
UNPUBLISHED = "org.proa.unpublished"
# In a name's record, not in a document: the digest of the index of which the name has one platform.
ORIGIN = "org.proa.index"
# Likewise: the ID of the image that a container was made of and committed from.
PARENT = "org.proa.parent"
OCI_LAYERS = {"none": media_types.OCI_LAYER, "gzip": media_types.OCI_LAYER_GZIP, "zstd": media_types.OCI_LAYER_ZSTD}


class StoredImage(msgspec.Struct, frozen=True):
    """One image for one platform with its documents: bytes, and the parsed view of them."""

    descriptor: Descriptor
    raw: bytes
    manifest: Manifest
    config_raw: bytes
    config: ImageConfig

    @property
    def is_unpublished(self) -> bool:
        """True when this manifest was made here and no registry has seen it."""
        return UNPUBLISHED in (self.manifest.annotations or {})


def read_image(content: ContentStore, descriptor: Descriptor, platform: Platform | None = None) -> StoredImage:
    """Read the documents of `descriptor`, which may be an index. Raises NotFound, Corrupt, Invalid, Unsupported."""
    raw = read_blob(content, descriptor, MANIFEST_LIMIT)
    if media_types.is_index(descriptor.media_type):
        descriptor = select_platform(parse_index(raw, descriptor.media_type), platform)
        raw = read_blob(content, descriptor, MANIFEST_LIMIT)
    manifest = parse_image_manifest(raw, descriptor)
    config_raw = read_blob(content, manifest.config, CONFIG_LIMIT)
    return StoredImage(descriptor, raw, manifest, config_raw, parse_image_config(config_raw, manifest))


def image_manifests(content: ContentStore, descriptor: Descriptor) -> list[Descriptor]:
    """`descriptor` itself, or the image manifests of an index that are in the store: at least one.

    Raises NotFound when there is none, Corrupt, Invalid.
    """
    if not media_types.is_index(descriptor.media_type):
        return [descriptor]
    index = parse_index(read_blob(content, descriptor, MANIFEST_LIMIT), descriptor.media_type)
    kept = [d for d in index.manifests if is_platform_image(d) and d.digest not in dropped(descriptor)]
    found = [d for d in kept if _has_documents(content, d)]
    if not found:
        raise NotFound(f"no image of index {descriptor.digest} is here", code="platform-not-found")
    return found


def _has_documents(content: ContentStore, descriptor: Descriptor) -> bool:
    if not media_types.is_manifest(descriptor.media_type):
        return False
    try:
        manifest = parse_manifest(read_blob(content, descriptor, MANIFEST_LIMIT), descriptor.media_type)
        content.info(manifest.config.digest)
    except NotFound:
        return False
    return True


def origin_digest(descriptor: Descriptor) -> Digest | None:
    """The index that the manifest a name points to was chosen from at its pull, as `pull` has noted it."""
    noted = (descriptor.annotations or {}).get(ORIGIN)
    return Digest(noted) if noted else None


def parent_id(descriptor: Descriptor) -> str:
    """The ID of the image that the one with this name was committed from; empty when it was not."""
    return (descriptor.annotations or {}).get(PARENT, "")


def parse_image_manifest(raw: bytes, descriptor: Descriptor) -> Manifest:
    """A manifest whose layers proa can apply. Raises Invalid, Unsupported (an artifact that is no image)."""
    manifest = parse_manifest(raw, descriptor.media_type)
    for layer in manifest.layers:
        if not media_types.is_layer(layer.media_type):
            raise Unsupported(
                f"{descriptor.digest} has a layer of media type {layer.media_type[:100]!r}: it is no container image",
                code="not-an-image",
                subject=descriptor.digest,
            )
    return manifest


def parse_image_config(raw: bytes, manifest: Manifest, wanted: Platform | None = None) -> ImageConfig:
    """A config that fits its manifest, and `wanted` if given. Raises Invalid, Corrupt, NotFound, Unsupported."""
    config = parse_config(raw)
    check_config(manifest, config)
    if config.os not in ("", "linux"):
        raise Unsupported(f"the image is for {config.os}: only linux images can be used", code="platform-unsupported")
    if wanted is not None and config.architecture and not config.platform.matches(wanted):
        raise NotFound(
            f"the image is for {config.platform}, {wanted} was asked for",
            code="platform-not-found",
            hint=f"the image is offered for: {config.platform}",
        )
    return config


def make_image(content: ContentStore, config_raw: bytes, layers: Sequence[Descriptor]) -> Descriptor:
    """Store a config and an OCI manifest over layers that are there; bytes of the config are kept as they are.

    Layers may come from a Docker manifest: the same bytes have a name of their own in an OCI one.
    """
    config = write_blob(content, config_raw, media_types.OCI_CONFIG)
    compressions = [media_types.layer_compression(layer.media_type) for layer in layers]
    manifest = Manifest(
        schema_version=2,
        media_type=media_types.OCI_MANIFEST,
        config=config,
        layers=[
            Descriptor(media_type=OCI_LAYERS[compression], digest=layer.digest, size=layer.size)
            for layer, compression in zip(layers, compressions, strict=True)
        ],
        annotations={UNPUBLISHED: "compress layers when pushing"} if "none" in compressions else None,
    )
    return write_blob(content, encode(manifest), media_types.OCI_MANIFEST)


def assign(storage: Storage, name: str, descriptor: Descriptor) -> Image:
    """Make `name` point to `descriptor`; an image that thereby loses its last name stays under its digest."""
    try:
        before = storage.images.get(name).descriptor
    except NotFound:
        return storage.images.put(name, descriptor)
    image = storage.images.put(name, descriptor)
    if before.digest != descriptor.digest and not storage.images.find(before.digest):
        storage.images.put(before.digest, before)
    return image


def plain(descriptor: Descriptor) -> Descriptor:
    """Media type, digest and size only: what a name points to."""
    return Descriptor(media_type=descriptor.media_type, digest=descriptor.digest, size=descriptor.size)
