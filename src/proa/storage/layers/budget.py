"""What a layer archive may cost at most, so that no input can exhaust the machine."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from proa.errors import Exhausted

__all__ = ["DEFAULT_BUDGET", "Budget", "exceeded"]


class Budget(NamedTuple):
    """Limits on one layer; every one refuses with Exhausted, code `layer-budget`.

    header_bytes:      PAX records and GNU long names of one entry.
    name_bytes:        one path or link target.
    entries:           archive members, whiteouts included.
    unpacked_bytes:    the uncompressed archive.
    file_bytes:        the size of one file, holes included.
    sparse_segments:   data segments of one sparse file.
    ratio:             uncompressed bytes per compressed byte, once more than ratio_floor_bytes came out. DEFLATE cannot
                       exceed 1032; a layer that is one big file of zeros legitimately comes near.
    zstd_window_bytes: what a zstd decoder has to hold. Levels up to 19 take 8 MiB.
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


DEFAULT_BUDGET = Budget()


def exceeded(what: str, limit: int, subject: str = "", **fields: Any) -> NoReturn:
    """Raise Exhausted for a budget named `what` whose bound is `limit`."""
    where = f" at {subject!r}" if subject else ""
    raise Exhausted(
        f"layer refused: more than {limit} {what}{where}",
        code="layer-budget",
        subject=subject,
        hint="raise the limit if you trust the image",
        limit=limit,
        **fields,
    )
