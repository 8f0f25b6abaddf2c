"""Which containers stand on an image: their own, or one that adds layers to its."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proa.engine.images import image_id, top_chain_id
from proa.engine.types import Container
from proa.errors import NotFound

if TYPE_CHECKING:
    from proa.engine.images import Images
    from proa.storage import Snapshotter


def chains_below(snapshots: Snapshotter, chain: str) -> set[str]:
    """A chain ID with those of all layers below it, as far as their snapshots are there."""
    out = set()
    while chain and chain not in out:
        out.add(chain)
        try:
            chain = snapshots.stat(chain).parent
        except NotFound:
            break
    return out


def stands_on(images: Images, snapshots: Snapshotter, name: str) -> Callable[[Container], bool]:
    """A test for the image that `name` means now; of one that is gone, containers of that name or ID.

    Raises Invalid for an ambiguous prefix.
    """
    try:
        stored = images.find(name)
    except NotFound:
        return lambda record: record.image_name in (name, f"{name}:latest") or _has_id(record, name)
    identity, top = image_id(stored), top_chain_id(stored)
    known: dict[str, bool] = {}

    def test(record: Container) -> bool:
        if record.image_id == identity:
            return True
        if record.chain_id not in known:
            known[record.chain_id] = record.chain_id != top and top in chains_below(snapshots, record.chain_id)
        return known[record.chain_id]

    return test


def _has_id(record: Container, text: str) -> bool:
    prefix = text.removeprefix("sha256:")
    return prefix != "" and record.image_id.removeprefix("sha256:").startswith(prefix)
