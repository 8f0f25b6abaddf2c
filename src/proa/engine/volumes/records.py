"""What is kept about a volume."""

from __future__ import annotations

import msgspec

__all__ = ["Owner", "Volume"]


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """For what an anonymous volume was made: container (id, name), its image, and the path it is mounted on."""

    container: str
    name: str
    image: str
    path: str


class Volume(msgspec.Struct, kw_only=True):
    """One volume's record."""

    name: str
    created: str
    mountpoint: str
    driver: str = "local"
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False
    owner: Owner | None = None
