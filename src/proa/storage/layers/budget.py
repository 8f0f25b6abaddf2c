"""What a layer archive may cost at most, so that no input can exhaust the machine."""

from __future__ import annotations

from typing import Literal, NamedTuple, NoReturn

from proa.errors import Exhausted

__all__ = ["DEFAULT_BUDGET", "Budget"]

Bound = Literal[
    "header_bytes",
    "name_bytes",
    "entries",
    "unpacked_bytes",
    "file_bytes",
    "sparse_segments",
    "ratio",
    "zstd_window_bytes",
    "xz_memory_bytes",
]

# By what names an administrator knows them: keys of [limits], see proa.storage.Limits.
_SETTINGS: dict[Bound, str] = {
    "header_bytes": "header-bytes",
    "name_bytes": "path-bytes",
    "unpacked_bytes": "layer-bytes",
    "file_bytes": "file-bytes",
    "sparse_segments": "sparse-segments",
    "ratio": "expansion",
    "zstd_window_bytes": "zstd-window-bytes",
    "xz_memory_bytes": "xz-memory-bytes",
}


class Budget(NamedTuple):
    """Limits on one layer; every one refuses with Exhausted, code `layer-budget`.

    header_bytes:      PAX records and GNU long names of one entry.
    name_bytes:        one path or link target.
    entries:           archive members, whiteouts included; `entries_setting` is what this limit is called.
    unpacked_bytes:    the uncompressed archive.
    file_bytes:        the size of one file, holes included.
    sparse_segments:   data segments of one sparse file.
    ratio:             uncompressed bytes per compressed byte, once more than ratio_floor_bytes came out. DEFLATE cannot
                       exceed 1032; a layer that is one big file of zeros legitimately comes near.
    zstd_window_bytes: what a zstd decoder has to hold. Levels up to 19 take 8 MiB.
    xz_memory_bytes:   what an xz decoder may take. `xz -9` makes it 65 MiB.
    """

    header_bytes: int = 1 << 20
    name_bytes: int = 8 << 10
    entries: int = 4_000_000
    unpacked_bytes: int = 1 << 40
    file_bytes: int = 1 << 43
    sparse_segments: int = 1 << 18
    ratio: int = 500
    ratio_floor_bytes: int = 1 << 29
    zstd_window_bytes: int = 1 << 25
    xz_memory_bytes: int = 68 << 20
    entries_setting: str = "layer-entries"

    @property
    def memory_bytes(self) -> int:
        """What a process that keeps to this may come to hold, beyond what it always does."""
        # The window twice, while a frame follows another; records as bytes, split and joined; two numbers a segment.
        return 2 * self.zstd_window_bytes + self.xz_memory_bytes + 8 * self.header_bytes + 256 * self.sparse_segments

    @property
    def admitted(self) -> Budget:
        """For what was made here, or let in before: zeros of large files pack a thousand to one, and better."""
        return self._replace(ratio=1 << 60)

    def exceeded(self, bound: Bound, what: str, subject: str = "") -> NoReturn:
        """Raise Exhausted: there is more of `what` than a bound allows."""
        limit = getattr(self, bound)
        setting = self.entries_setting if bound == "entries" else _SETTINGS[bound]
        where = f" at {subject!r}" if subject else ""
        raise Exhausted(
            f"layer refused: more than {limit} {what}{where} ({setting})",
            code="layer-budget",
            subject=subject,
            hint=f"raise `{setting}` in [limits] of the configuration if you trust the image",
            limit=limit,
            setting=setting,
        )


DEFAULT_BUDGET = Budget()
