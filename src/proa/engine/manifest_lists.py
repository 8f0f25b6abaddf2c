"""Manifest lists: indexes put together here, of images that are in the store; a name points to one as to an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from proa.engine.types import PlatformChange
from proa.errors import Conflict, Invalid, NotFound
from proa.oci import (
    MANIFEST_LIMIT,
    Descriptor,
    Index,
    Platform,
    encode,
    media_types,
    parse_index,
)
from proa.storage import read_blob
from proa.transfer import Credentials, Progress, StoredImage
from proa.transfer.progress import silent
from proa.transfer.stored_image import image_manifests, plain, read_image

if TYPE_CHECKING:
    from proa.engine.engine import Engine


class ManifestLists:
    """Make and change indexes. An image that is not here is pulled first, with all its platforms."""

    def __init__(self, engine: Engine) -> None:
        self._storage = engine.storage
        self._images = engine.images
        self._transfers = engine.transfers
        self._names = engine.images.short_names

    def create(
        self,
        name: str,
        images: Sequence[str] = (),
        *,
        amend: bool = False,
        credentials: Credentials | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """Make a list called `name` of these images and return its digest.

        amend: add them to the list that is there. Raises Conflict when the name is taken, NotFound, Invalid.
        """
        reference = self._names.parse(name)
        entries = [entry for image in images for entry in self._entries(image, credentials)]
        with self._images.lock, self._storage.leases.hold("manifest list"):
            try:
                index = self._index(name)
            except NotFound:
                index = Index(schema_version=2, media_type=media_types.OCI_INDEX, manifests=[])
            except Invalid:
                raise Conflict(f"{name} is an image and no manifest list", code="name-in-use", subject=name) from None
            else:
                if not amend:
                    raise Conflict(
                        f"there is a manifest list {name} already", code="name-in-use", hint="use --amend to add to it"
                    )
            index = msgspec.structs.replace(index, annotations={**(index.annotations or {}), **(annotations or {})})
            return self._put(reference.name, _with(index, entries))

    def add(self, name: str, images: Sequence[str], *, credentials: Credentials | None = None) -> str:
        """Add images, or all those of another list; one that is there already is replaced. Raises NotFound, Invalid."""
        entries = [entry for image in images for entry in self._entries(image, credentials)]
        return self._change(name, lambda index: _with(index, entries))

    def annotate(
        self, name: str, image: str, change: PlatformChange, annotations: Mapping[str, str] | None = None
    ) -> str:
        """Say what an entry is for, and note something about it. `image`: its digest, or a name here that leads to it.

        Raises NotFound.
        """

        def annotated(index: Index) -> Index:
            chosen = self._chosen(index, name, image)
            before = chosen.platform or Platform()
            given = {k: v for k, v in msgspec.structs.asdict(change).items() if v}
            platform = msgspec.structs.replace(before, **given)
            notes = {**(chosen.annotations or {}), **(annotations or {})}
            changed = msgspec.structs.replace(chosen, platform=platform, annotations=notes or None)
            return msgspec.structs.replace(index, manifests=[changed if d is chosen else d for d in index.manifests])

        return self._change(name, annotated)

    def remove(self, name: str, image: str) -> str:
        """Take an entry out of a list. Raises NotFound."""

        def without(index: Index) -> Index:
            chosen = self._chosen(index, name, image)
            return msgspec.structs.replace(index, manifests=[d for d in index.manifests if d is not chosen])

        return self._change(name, without)

    def delete(self, name: str) -> None:
        """Forget a list; its images stay as far as they have names of their own. Raises NotFound, Invalid."""
        with self._images.lock:
            self._index(name)
            self._storage.images.delete(self._names.parse(name).name)
        self._images.removal.collect()

    def raw(self, name: str) -> bytes:
        """The index's bytes. Raises NotFound, Invalid when the name is an image's."""
        return read_blob(self._storage.content, self._descriptor(name), MANIFEST_LIMIT)

    def push(
        self,
        name: str,
        destination: str = "",
        *,
        credentials: Credentials | None = None,
        purge: bool = False,
        progress: Progress = silent,
    ) -> str:
        """Push a list with its images, to the registry in its name or as `destination`; returns its digest.

        purge: forget it afterwards. Raises as a push does.
        """
        descriptor = self._descriptor(name)
        target = self._names.parse(destination or name).name
        known = {image.name for image in self._storage.images.walk()}
        if target not in known:
            self._storage.images.put(target, descriptor)
        try:
            if self._storage.images.get(target).descriptor.digest != descriptor.digest:
                raise Conflict(f"{destination} is another image here", code="name-in-use", subject=destination)
            digest = self._transfers.push(destination or name, credentials=credentials, progress=progress)
        finally:
            if target not in known:
                self._storage.images.delete(target)
        if purge:
            self.delete(name)
        return digest

    def _descriptor(self, name: str) -> Descriptor:
        try:
            descriptor = self._storage.images.get(self._names.parse(name).name).descriptor
        except NotFound:
            raise NotFound(f"No such manifest: {name}", code="manifest-not-found", subject=name) from None
        if not media_types.is_index(descriptor.media_type):
            raise Invalid(f"{name} is an image and no manifest list", code="not-a-list", subject=name)
        return descriptor

    def _index(self, name: str) -> Index:
        return parse_index(self.raw(name), self._descriptor(name).media_type)

    def _change(self, name: str, change: Callable[[Index], Index]) -> str:
        with self._images.lock, self._storage.leases.hold("manifest list"):
            return self._put(self._names.parse(name).name, change(self._index(name)))

    def _put(self, name: str, index: Index) -> str:
        index = msgspec.structs.replace(index, annotations=index.annotations or None)
        descriptor = self._storage.write_document(encode(index), index.media_type)
        self._storage.images.put(name, descriptor)
        return descriptor.digest

    def _entries(self, image: str, credentials: Credentials | None) -> list[Descriptor]:
        """The descriptors of an image, or of those of an index, with their platforms."""
        try:
            descriptor = self._storage.images.get(self._names.parse(image).name).descriptor
        except (NotFound, Invalid):
            try:
                descriptor = self._images.find(image).descriptor
            except NotFound:
                self._transfers.pull(image, all_platforms=True, credentials=credentials)
                descriptor = self._storage.images.get(self._names.parse(image).name).descriptor
        with self._storage.leases.hold("manifest list"):
            return [
                self._entry(read_image(self._storage.content, manifest), manifest)
                for manifest in image_manifests(self._storage.content, plain(descriptor))
            ]

    def _entry(self, image: StoredImage, known: Descriptor) -> Descriptor:
        if image.is_unpublished:
            from proa.transfer.compress import publish_image

            # An entry's digest is final: what a registry will see has to be made now.
            image = publish_image(self._storage, image)
        platform = known.platform or image.config.platform
        return msgspec.structs.replace(plain(image.descriptor), platform=platform, annotations=known.annotations)

    def _chosen(self, index: Index, name: str, image: str) -> Descriptor:
        digests = {image}
        if not image.startswith("sha256:"):
            try:
                digests = {entry.digest for entry in self._entries_here(image)}
            except NotFound:
                digests = set()
        for descriptor in index.manifests:
            if descriptor.digest in digests:
                return descriptor
        raise NotFound(f"manifest list {name} has no entry {image}", code="manifest-not-found", subject=image)

    def _entries_here(self, image: str) -> list[Descriptor]:
        return image_manifests(self._storage.content, plain(self._images.find(image).descriptor))


def _with(index: Index, entries: Sequence[Descriptor]) -> Index:
    new = {entry.digest for entry in entries}
    kept = [d for d in index.manifests if d.digest not in new]
    return msgspec.structs.replace(index, manifests=[*kept, *entries])
