"""The nouns users know (containers, images, networks, volumes, events) over storage, network and monitors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proa.engine.engine import Engine

__all__ = ["Engine"]


def __getattr__(name: str) -> Any:
    # `proa.engine.types` is read by code that has no use for the whole engine.
    if name == "Engine":
        from proa.engine.engine import Engine

        return Engine
    raise AttributeError(name)
