"""What a container being created mounts besides paths of the host: volumes it then holds, images it then keeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from proa.engine.mounts import VolumeWish
from proa.engine.types import Container, MountPoint
from proa.engine.volumes import Owner
from proa.errors import NotFound, ProaError

if TYPE_CHECKING:
    from proa.engine.engine import Engine

__all__ = ["Sources", "fill_volumes", "hold_images", "image_mounts", "release_images"]


class Sources:
    """For `resolve_mounts`: makes volumes in the container's name, finds images and other containers."""

    def __init__(self, engine: Engine, record: Container, volume_labels: Mapping[str, str] | None = None) -> None:
        self._engine = engine
        self._record = record
        self._labels = dict(volume_labels or {})

    def volume(self, wish: VolumeWish) -> tuple[str, str]:
        """Raises what `Volumes.create` raises."""
        record = self._record
        owner = None
        if not wish.name:
            owner = Owner(container=record.id, name=record.name, image=record.image_name, path=wish.target)
        driver = wish.driver or self._record.host.volume_driver or "local"
        volume = self._engine.volumes.create(
            wish.name,
            driver=driver,
            options=wish.options,
            labels=wish.labels | self._labels,
            owner=owner,
            holder=record.id,
        )
        return volume.name, volume.mountpoint

    def image(self, name: str) -> str:
        """Raises NotFound."""
        from proa.engine.images import top_chain_id

        try:
            image = self._engine.images.find(name)
        except NotFound:
            # Not Docker's "No such image": clients would pull the container's own.
            raise NotFound(
                f"the image to mount, {name}, is not here",
                code="mount-image-missing",
                subject=name,
                hint=f"pull it first: proa pull {name}",
            ) from None
        self._engine.images.unpack(image)
        return top_chain_id(image)

    def mounts_of(self, container: str) -> list[MountPoint]:
        """Raises NotFound."""
        return self._engine.containers.get(container).mounts


def fill_volumes(engine: Engine, record: Container) -> None:
    """Copy what the image has at the places of empty volumes into them, as Docker does at the first use."""
    layers = [Path(p) for p in engine.storage.snapshots.lowers(record.chain_id)]
    for point in record.mounts:
        if point.type == "volume" and not (point.nocopy or point.subpath):
            engine.volumes.fill(engine.volumes.get(point.name), layers, point.destination)


def hold_images(engine: Engine, record: Container) -> None:
    """Keep the file systems of mounted images as long as the container exists."""
    for number, point in enumerate(record.mounts):
        if point.type == "image":
            engine.storage.snapshots.view(_key(record.id, number), point.source)


def release_images(engine: Engine, record: Container) -> None:
    """The container is removed."""
    for number, point in enumerate(record.mounts):
        if point.type == "image":
            try:
                engine.storage.snapshots.remove(_key(record.id, number))
            except ProaError:
                pass


def image_mounts(engine: Engine, record: Container) -> dict[str, dict[str, Any]]:
    """How to mount the images, by destination, as members of config.json's mounts."""
    out = {}
    for number, point in enumerate(record.mounts):
        if point.type == "image":
            mount = engine.storage.snapshots.mounts(_key(record.id, number))[0]
            out[point.destination] = msgspec.to_builtins(mount)
    return out


def _key(container: str, number: int) -> str:
    return f"container:{container}:image:{number}"
