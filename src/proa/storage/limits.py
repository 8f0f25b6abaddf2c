"""What input may cost, as an administrator can set it: each refusal names the setting that would allow more."""

from __future__ import annotations

from typing import Annotated, Literal, NoReturn

import msgspec

from proa.errors import Invalid
from proa.oci import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    MAX_BLOB,
    MAX_LAYERS,
    MAX_MANIFESTS,
    Descriptor,
    media_types,
    parse_index,
    parse_manifest,
)
from proa.storage.layers.budget import Budget

Positive = Annotated[int, msgspec.Meta(gt=0, le=1 << 60)]
# What is held in memory and parsed there: more than that helps nobody.
Held = Annotated[int, msgspec.Meta(gt=0, le=1 << 30)]

Bound = Literal[
    "manifest_bytes",
    "config_bytes",
    "manifest_layers",
    "index_manifests",
    "blob_bytes",
    "archive_document_bytes",
    "archive_images",
    "archive_names",
    "reply_bytes",
    "token_bytes",
    "listing_bytes",
    "listing_names",
]


class Limits(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True, kw_only=True):
    """Sizes in bytes. They hold where something comes in: what is in the store stays readable when one is lowered.

    layer_bytes, layer_entries: one layer, uncompressed; the bytes also of an archive of images as a whole
    file_bytes:                 one file in a layer, holes included
    path_bytes, header_bytes:   one path or link target; the extended headers of one archive member
    sparse_segments:            runs of data in one sparse file of an archive
    expansion:                  uncompressed bytes per compressed one, once more than expansion_floor_bytes came out
    zstd_window_bytes, xz_memory_bytes: what a zstd frame or an xz stream makes its decoder hold
    manifest_bytes, config_bytes: one manifest or index; one image config, or other document of an archive
    manifest_layers, index_manifests: how many a manifest or index names
    blob_bytes:                 one blob that a manifest names, as it is stored
    archive_entries, archive_images, archive_names: members of an archive of images, images in it, names of one of them
    archive_document_bytes:     all documents of one archive together
    reply_bytes, token_bytes:   what a registry answers where nothing larger is asked for; what its token server does
    listing_bytes, listing_names: one page of tags or repositories; all pages together
    """

    layer_bytes: Positive = 1 << 40
    layer_entries: Positive = 4_000_000
    file_bytes: Positive = 1 << 43
    path_bytes: Positive = 8 << 10
    header_bytes: Held = 1 << 20
    sparse_segments: Annotated[int, msgspec.Meta(gt=0, le=1 << 24)] = 1 << 18
    expansion: Positive = 500
    expansion_floor_bytes: Positive = 1 << 29
    zstd_window_bytes: Annotated[int, msgspec.Meta(ge=1 << 20, le=1 << 31)] = 1 << 25
    xz_memory_bytes: Annotated[int, msgspec.Meta(ge=1 << 20, le=1 << 32)] = 68 << 20
    manifest_bytes: Annotated[int, msgspec.Meta(gt=0, le=MANIFEST_LIMIT)] = 4 << 20
    config_bytes: Annotated[int, msgspec.Meta(gt=0, le=CONFIG_LIMIT)] = 8 << 20
    manifest_layers: Annotated[int, msgspec.Meta(gt=0, le=MAX_LAYERS)] = 1024
    index_manifests: Annotated[int, msgspec.Meta(gt=0, le=MAX_MANIFESTS)] = 4096
    blob_bytes: Annotated[int, msgspec.Meta(gt=0, le=MAX_BLOB)] = MAX_BLOB
    archive_entries: Positive = 20_000
    archive_images: Positive = 1000
    archive_names: Positive = 100
    archive_document_bytes: Held = 32 << 20
    reply_bytes: Held = 64 << 10
    token_bytes: Held = 1 << 20
    listing_bytes: Held = 16 << 20
    listing_names: Positive = 1_000_000

    @property
    def layer(self) -> Budget:
        """For one layer."""
        return Budget(
            header_bytes=self.header_bytes,
            name_bytes=self.path_bytes,
            entries=self.layer_entries,
            unpacked_bytes=self.layer_bytes,
            file_bytes=self.file_bytes,
            sparse_segments=self.sparse_segments,
            ratio=self.expansion,
            ratio_floor_bytes=self.expansion_floor_bytes,
            zstd_window_bytes=self.zstd_window_bytes,
            xz_memory_bytes=self.xz_memory_bytes,
        )

    @property
    def archive(self) -> Budget:
        """For an archive of images, whose members are documents and layers."""
        return self.layer._replace(entries=self.archive_entries, entries_setting="archive-entries")

    def size_of(self, bound: Bound) -> int:
        """A limit by its name."""
        limit: int = getattr(self, bound)
        return limit

    def exceeded(self, bound: Bound, what: str, subject: str = "") -> NoReturn:
        """Raise Invalid `too-large`: `what` is more than a bound allows."""
        setting = bound.replace("_", "-")
        limit = self.size_of(bound)
        raise Invalid(
            f"{what}, at most {limit} are accepted ({setting})",
            code="too-large",
            subject=subject,
            hint=f"raise `{setting}` in [limits] of the configuration if you trust where it comes from",
            limit=limit,
            setting=setting,
        )

    def check_size(self, descriptor: Descriptor) -> None:
        """Refuse a manifest, index or config by the size it is announced with. Raises Invalid."""
        kind = descriptor.media_type
        document = media_types.is_document(kind)
        bound: Bound = "manifest_bytes" if document else "config_bytes"
        if descriptor.size > self.size_of(bound):
            self.exceeded(bound, f"{descriptor.digest} has {descriptor.size} bytes", descriptor.digest)

    def admit(self, descriptor: Descriptor, raw: bytes) -> None:
        """Refuse a document that is too long or names too much. Raises Invalid, also for a malformed one."""
        self.check_size(descriptor)
        if media_types.is_manifest(descriptor.media_type):
            manifest = parse_manifest(raw, descriptor.media_type)
            if len(manifest.layers) > self.manifest_layers:
                count = f"manifest {descriptor.digest} has {len(manifest.layers)} layers"
                self.exceeded("manifest_layers", count, descriptor.digest)
            named = [manifest.config, *manifest.layers]
        elif media_types.is_index(descriptor.media_type):
            named = parse_index(raw, descriptor.media_type).manifests
            if len(named) > self.index_manifests:
                count = f"index {descriptor.digest} has {len(named)} manifests"
                self.exceeded("index_manifests", count, descriptor.digest)
        else:
            named = []
        for blob in named:
            if blob.size > self.blob_bytes:
                self.exceeded("blob_bytes", f"{descriptor.digest} names a blob of {blob.size} bytes", blob.digest)
