"""What input may cost: the numbers behind refusals with the code `layer-budget`, as an administrator can set them."""

from __future__ import annotations

from typing import Annotated

import msgspec

from proa.storage.layers.budget import Budget

Positive = Annotated[int, msgspec.Meta(gt=0, le=1 << 60)]


class Limits(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True, kw_only=True):
    """Sizes in bytes.

    layer_bytes, layer_entries: one layer, uncompressed; the bytes also of an archive of images as a whole
    file_bytes:                 one file in a layer, holes included
    path_bytes, header_bytes:   one path or link target; the extended headers of one archive member
    expansion:                  uncompressed bytes per compressed one, once more than expansion_floor_bytes came out
    zstd_window_bytes:          what a zstd frame makes its decoder hold
    archive_entries:            members of an archive of images
    """

    layer_bytes: Positive = 1 << 40
    layer_entries: Positive = 4_000_000
    file_bytes: Positive = 1 << 43
    path_bytes: Positive = 8 << 10
    header_bytes: Positive = 1 << 20
    expansion: Positive = 500
    expansion_floor_bytes: Positive = 1 << 29
    zstd_window_bytes: Annotated[int, msgspec.Meta(ge=1 << 20, le=1 << 31)] = 1 << 25
    archive_entries: Positive = 20_000

    @property
    def layer(self) -> Budget:
        """For one layer."""
        return Budget(
            header_bytes=self.header_bytes,
            name_bytes=self.path_bytes,
            entries=self.layer_entries,
            unpacked_bytes=self.layer_bytes,
            file_bytes=self.file_bytes,
            ratio=self.expansion,
            ratio_floor_bytes=self.expansion_floor_bytes,
            zstd_window_bytes=self.zstd_window_bytes,
        )

    @property
    def archive(self) -> Budget:
        """For an archive of images, whose members are documents and layers."""
        return self.layer._replace(entries=self.archive_entries, name_bytes=min(self.path_bytes, 4096))
