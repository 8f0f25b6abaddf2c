"""Remove and prune images, by Docker's rules: what is untagged, what is deleted, and what stands in the way.

By name: that name goes; with the last name the image is deleted, unless a running container uses it, when it stays
without a name. By ID: the image goes with its only name; several names, and containers, have to be forced, running
containers cannot be. The content of a deleted image stays as long as a container stands on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import structs

from proa.engine.image_filters import truth
from proa.engine.types import Container, ImageRecord, RemovedImage
from proa.errors import Conflict, Invalid, NotFound, ProaError
from proa.oci import (
    MANIFEST_LIMIT,
    Descriptor,
    digest_hex,
    media_types,
    parse_digest,
    parse_platform,
    parse_reference,
    strict_loads,
)
from proa.storage import read_blob
from proa.storage.collect import Collected
from proa.storage.images import DROPPED, dropped

if TYPE_CHECKING:
    from proa.engine.catalog import Catalog
    from proa.engine.events import Events
    from proa.engine.images import Images
    from proa.storage import Storage
    from proa.transfer import StoredImage


class ImageRemoval:
    """What `rmi`, `image prune` and collection do."""

    def __init__(self, images: Images, storage: Storage, catalog: Catalog, events: Events) -> None:
        self._images = images
        self._storage = storage
        self._catalog = catalog
        self._events = events

    def remove(self, name_or_id: str, *, force: bool = False) -> list[RemovedImage]:
        """See above. Raises NotFound, Conflict."""
        with self._images.lock:
            out = self._remove(name_or_id, force)
        if out and out[-1].deleted:
            self.collect()
        return out

    def remove_platforms(self, text: str, platforms: Sequence[str], *, force: bool = False) -> list[RemovedImage]:
        """Remove what is here for some platforms of a name's index; with the last one the whole image.

        Raises NotFound, Conflict (a container uses one), Invalid (the name has one platform only).
        """
        wanted = [parse_platform(platform) for platform in platforms]
        with self._images.lock:
            name, descriptor = self._images.named(text)
            if not media_types.is_index(descriptor.media_type):
                raise Invalid(
                    f"{text} is an image for one platform: remove it without choosing one",
                    code="platform-single",
                    subject=text,
                )
            here = self._images.variants(descriptor)
            going = [v for v in here if any(v.config.platform.distance(platform) == 0 for platform in wanted)]
            if not going:
                raise NotFound(
                    f"no image of {text} for {', '.join(map(str, wanted))} is here", code="platform-not-found"
                )
            ids = {self._images.id_of(variant): variant for variant in going}
            users = [e.record for e in self._catalog if e.record.image_id in ids]
            if users and (not force or any(user.state.active for user in users)):
                raise Conflict(
                    f"conflict: unable to remove a platform of {text} - container {users[0].id[:12]} is using it",
                    code="image-in-use",
                )
            if len(going) == len(here):
                out = self._remove(text, force)
            else:
                digests = dropped(descriptor) | {variant.descriptor.digest for variant in going}
                annotations = {**(descriptor.annotations or {}), DROPPED: " ".join(sorted(digests))}
                self._storage.images.put(name, structs.replace(descriptor, annotations=annotations))
                for variant in going:
                    self._images.forget(variant)
                out = [RemovedImage(deleted=variant.descriptor.digest) for variant in going]
        self.collect()
        return out

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[list[RemovedImage], int]:
        """Remove dangling images, or with `dangling=false` all that no container uses; what went and bytes freed.

        Raises Invalid for an unknown filter.
        """
        filters = dict(filters or {})
        dangling = truth("dangling", filters.pop("dangling", ["true"]))
        if unknown := set(filters) - {"label", "label!", "until"}:
            raise Invalid(f"invalid filter '{min(unknown)}'", code="filter-invalid")
        out: list[RemovedImage] = []
        with self._images.lock:
            for record in self._images.list(filters=filters):
                if not record.containers and not (dangling and record.names):
                    out += self._prune_one(record)
        # What interrupted transfers left stays to be resumed, unless everything that is not needed is to go.
        rest = self.collect(keep_interrupted_s=None if dangling else 0)
        freed = rest.blob_bytes + rest.snapshot_bytes
        self._events.publish("image", "prune", "", {"reclaimed": str(freed)})
        return out, freed

    def collect(self, keep_interrupted_s: float | None = None) -> Collected:
        """Delete what no image and no container needs."""
        return self._storage.collect(self.container_roots(), keep_interrupted_s=keep_interrupted_s)

    def container_roots(self) -> list[Descriptor]:
        """The manifests of containers, named or not: a commit needs the image's content."""
        return [d for digest in {e.record.manifest for e in self._catalog} if (d := self.descriptor(digest))]

    def descriptor(self, digest: str) -> Descriptor | None:
        """A stored manifest by its digest; None when it is not there or no manifest."""
        try:
            info = self._storage.unobserved.info(parse_digest(digest))
            raw = read_blob(
                self._storage.unobserved,
                Descriptor(media_type="", digest=info.digest, size=info.size),
                MANIFEST_LIMIT,
            )
            document = strict_loads(raw, MANIFEST_LIMIT, "manifest")
        except ProaError:
            return None
        kind = document.get("mediaType", media_types.OCI_MANIFEST) if isinstance(document, dict) else ""
        return Descriptor(media_type=kind, digest=info.digest, size=info.size) if isinstance(kind, str) else None

    def _remove(self, text: str, force: bool) -> list[RemovedImage]:
        images = self._images
        stored = images.find(text)
        id = images.id_of(stored)  # noqa: A001
        names = images.names_of(id)
        users = images.users(names, id)
        going = images.names_meant(text, names)
        if going:
            if not force and _single(names) and users:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{text}" (must force) - '
                    f"container {users[0].id[:12]} is using its referenced image {digest_hex(id)[:12]}",
                    code="image-in-use",
                )
            out = [self._untag(id, name) for name in going]
            if len(going) < len(names):
                return out
            if any(user.state.active for user in users):
                self._storage.images.put(stored.descriptor.digest, stored.descriptor)
                return out
        else:
            self._check(id, users, force, several=not _single(names))
            out = []
        return [*out, *self._delete(stored, [name for name in names if name not in going])]

    def _check(self, id: str, users: Sequence[Container], force: bool, *, several: bool) -> None:  # noqa: A002
        """Raise Conflict for what stands in the way of deleting by ID."""
        running = [user for user in users if user.state.active]
        if running:
            why = f"cannot be forced) - image is being used by running container {running[0].id[:12]}"
        elif force:
            return
        elif several:
            why = "must be forced) - image is referenced in multiple repositories"
        elif users:
            why = f"must be forced) - image is being used by stopped container {users[0].id[:12]}"
        else:
            return
        raise Conflict(f"conflict: unable to delete {digest_hex(parse_digest(id))[:12]} ({why}", code="image-in-use")

    def _delete(self, stored: StoredImage, names: Sequence[str]) -> list[RemovedImage]:
        id = self._images.id_of(stored)  # noqa: A001
        out = []
        for name in names:
            if name.startswith("sha256:"):
                self._storage.images.delete(name)
            else:
                out.append(self._untag(id, name))
        self._images.forget(stored)
        self._events.publish("image", "delete", id, {"name": id})
        return [*out, RemovedImage(deleted=id)]

    def _untag(self, id: str, name: str) -> RemovedImage:  # noqa: A002
        self._storage.images.delete(name)
        familiar = self._images.short_names.familiar(parse_reference(name))
        self._events.publish("image", "untag", id, {"name": familiar})
        return RemovedImage(untagged=familiar)

    def _prune_one(self, record: ImageRecord) -> list[RemovedImage]:
        try:
            return self._remove(record.id, True)
        except ProaError:
            return []  # a container took it, or somebody else removed it


def _single(names: Sequence[str]) -> bool:
    """Whether an image has one name only: at most one tag, and digests of no other repository than the tag's."""
    references = [parse_reference(name) for name in names if not name.startswith("sha256:")]
    tags = [r for r in references if r.tag]
    return len(tags) <= 1 and len({(r.registry, r.repository) for r in references}) <= 1
