"""What a registry has under a name, without pulling it: its documents, and nothing of its layers."""

from __future__ import annotations

import msgspec

from proa.errors import NotFound, Unsupported
from proa.oci import (
    Descriptor,
    ImageConfig,
    Manifest,
    Platform,
    is_platform_image,
    media_types,
    parse_index,
    select_platform,
)
from proa.transfer.remote import Remote
from proa.transfer.stored_image import parse_image_config, parse_image_manifest


class RemoteImage(msgspec.Struct, frozen=True, kw_only=True):
    """What a name in a registry points to.

    root, raw: what the name itself points to
    entries:   those of an index that are images; of one manifest, that
    manifest, config: of the image for the platform asked for; None when there is none for it, or it is no image
    """

    root: Descriptor
    raw: bytes
    entries: list[Descriptor]
    manifest: Manifest | None = None
    descriptor: Descriptor | None = None
    config: ImageConfig | None = None
    config_raw: bytes = b""


def inspect_remote(remote: Remote, platform: Platform | None = None) -> RemoteImage:
    """Read the documents of a name. Raises NotFound (also when `platform` was asked for and is not there), …"""
    root = remote.resolve()
    raw = remote.read(root)
    entries = [root]
    descriptor: Descriptor | None = root
    if media_types.is_index(root.media_type):
        index = parse_index(raw, root.media_type)
        entries = [d for d in index.manifests if is_platform_image(d)]
        try:
            descriptor = select_platform(index, platform)
        except NotFound:
            if platform is not None:
                raise
            descriptor = None  # the index is shown all the same
    if descriptor is None or not media_types.is_manifest(descriptor.media_type):
        return RemoteImage(root=root, raw=raw, entries=entries)
    manifest_raw = raw if descriptor is root else remote.read(descriptor)
    try:
        manifest = parse_image_manifest(manifest_raw, descriptor)
    except Unsupported:  # an artifact
        return RemoteImage(root=root, raw=raw, entries=entries, descriptor=descriptor)
    config_raw = remote.read(manifest.config)
    # What an index says of a platform counts; some images say less of themselves.
    config = parse_image_config(config_raw, manifest, None if descriptor.platform else platform)
    return RemoteImage(
        root=root,
        raw=raw,
        entries=entries,
        manifest=manifest,
        descriptor=descriptor,
        config=config,
        config_raw=config_raw,
    )


def remote_platforms(image: RemoteImage) -> list[Platform]:
    """The platforms that a name is offered for."""
    if image.config is not None and image.descriptor == image.root:
        return [image.config.platform]
    return [d.platform for d in image.entries if d.platform is not None]
