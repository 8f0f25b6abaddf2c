"""Images mounted on the host, for people who look into them.

The engine mounts nothing on the host (decision 4): it says how, holds the layers, and the one who asked mounts, in the
mount namespace that is his. What is held is a read-only snapshot and a record of where it was asked for:

    image-mounts/<n>.json      image, target, boot

After a boot nothing is mounted any more, and the record of an earlier boot is dropped when the engine starts.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from proa.engine.images import image_id, top_chain_id
from proa.errors import Conflict, Corrupt, Invalid, NotFound
from proa.storage import Mount, Records, make_private
from proa.storage.collect import MOUNT_PREFIX

if TYPE_CHECKING:
    from proa.engine.engine import Engine


class ImageMount(msgspec.Struct, rename="pascal", kw_only=True):
    """One image and where it was to be mounted; `boot` is the kernel's boot ID, `key` the snapshot's."""

    id: str
    image: str
    target: str
    boot: str
    key: str


class ImageMounts:
    """The image mounts of one engine."""

    def __init__(self, engine: Engine) -> None:
        directory = engine.root / "image-mounts"
        make_private(directory)
        self._storage = engine.storage
        self._images = engine.images
        self._records = Records(directory, ImageMount)
        self._records.tidy()
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        for _, record in self._records.walk():
            if not isinstance(record, Corrupt) and record.boot != self._boot:
                self._drop(record)
        known = {record.key for record in self.list()}
        for snapshot in list(self._storage.snapshots.walk()):
            if snapshot.kind == "view" and snapshot.key.startswith(MOUNT_PREFIX) and snapshot.key not in known:
                self._storage.snapshots.remove(snapshot.key)

    def prepare(self, name: str, target: str, *, platform: str = "") -> list[Mount]:
        """Hold an image for a mount at `target`, an absolute path, and say how to mount it.

        Raises NotFound, Conflict when the target is taken, Invalid.
        """
        if not target.startswith("/"):
            raise Invalid(f"{target!r} is not an absolute path", code="path-invalid", subject=target)
        stored = self._images.find(name, platform)
        with self._images.lock, self._storage.leases.hold("image mount"):
            if any(record.target == target for record in self.list()):
                raise Conflict(f"an image is mounted at {target} already", code="mount-exists", subject=target)
            self._images.unpack(stored)
            chain = top_chain_id(stored)
            if not chain:
                raise Invalid(f"{name} has no layers to mount", code="image-empty", subject=name)
            key = MOUNT_PREFIX + secrets.token_hex(8)
            record = ImageMount(id=image_id(stored), image=name, target=target, boot=self._boot, key=key)
            mounts = self._storage.snapshots.view(key, chain)
            try:
                self._records.put(key, record)
            except BaseException:
                self._storage.snapshots.remove(key)
                raise
        return mounts

    def list(self) -> list[ImageMount]:
        """What is held, by target."""
        found = [record for _, record in self._records.walk() if not isinstance(record, Corrupt)]
        return sorted(found, key=lambda record: record.target)

    def release(self, target: str) -> None:
        """Let go of the image at a target, after it was unmounted. Raises NotFound."""
        for record in self.list():
            if record.target == target:
                self._drop(record)
                return
        raise NotFound(f"no image is mounted at {target}", code="mount-not-found", subject=target)

    def _drop(self, record: ImageMount) -> None:
        self._records.delete(record.key)
        try:
            self._storage.snapshots.remove(record.key)
        except NotFound:
            pass
