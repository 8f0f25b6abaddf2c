"""Images: find, list, tag and remove what the store has.

An image is a name for a manifest, or for an index of which one platform's manifest is here. Its ID, to users of
Docker, is the digest of its config. Images without a name are kept under their manifest's digest.
"""

from __future__ import annotations

import builtins
import io
import threading
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from proa import transfer
from proa.engine.catalog import Catalog
from proa.engine.clock import parse_rfc3339
from proa.engine.events import Events
from proa.engine.filters import match_labels, until_time
from proa.engine.hello import NAME as HELLO
from proa.engine.hello import hello_layer
from proa.engine.types import ImageRecord, RemovedImage
from proa.errors import Conflict, Corrupt, Invalid, NotFound, ProaError
from proa.oci import (
    Descriptor,
    Digest,
    RunConfig,
    chain_ids,
    digest_hex,
    host_platform,
    parse_platform,
    parse_reference,
)
from proa.storage import Storage
from proa.transfer import StoredImage


def image_id(stored: StoredImage) -> Digest:
    """What users of Docker call the image ID: the digest of its config."""
    return stored.manifest.config.digest


def top_chain_id(stored: StoredImage) -> str:
    """The snapshot a container starts on; empty for an image without layers."""
    chain = chain_ids(stored.config.rootfs.diff_ids)
    return chain[-1] if chain else ""


def run_config(stored: StoredImage) -> RunConfig:
    """The image's defaults for a container."""
    return stored.config.config or RunConfig()


class Images:
    """The collection of images of one engine."""

    def __init__(self, storage: Storage, catalog: Catalog, events: Events) -> None:
        self._storage = storage
        self._catalog = catalog
        self._events = events
        self._lock = threading.RLock()
        self._cache: dict[str, StoredImage] = {}

    # Reading -----------------------------------------------------------------

    def load(self, descriptor: Descriptor, platform: str = "") -> StoredImage:
        """The image a descriptor leads to, for a platform (default: this machine's). Raises NotFound, Corrupt."""
        wanted = parse_platform(platform) if platform else None
        found = self._cache.get(descriptor.digest)
        if found is None:
            found = transfer.read_image(self._storage.content, descriptor, wanted)
            self._cache[found.descriptor.digest] = found
        if wanted and not found.config.platform.matches(wanted):
            raise NotFound(
                f"image with reference {descriptor.digest} was found but its platform "
                f"({found.config.platform}) does not match the specified platform ({platform})",
                code="platform-not-found",
            )
        return found

    def load_manifest(self, digest: str, id: str = "") -> StoredImage:  # noqa: A002
        """The image of a manifest the store has, by its digest, else by image ID: a push compresses layers, which
        gives the same image another manifest. Raises NotFound.
        """
        for image in self._storage.images.walk():
            if image.descriptor.digest == digest:
                return self.load(image.descriptor)
        for stored, _ in self._walk():
            if id and image_id(stored) == id:
                return stored
        raise no_such_image(digest)

    def find(self, name_or_id: str, platform: str = "") -> StoredImage:
        """By reference, image ID or a unique prefix of it, or manifest digest. Raises NotFound with Docker's words."""
        text = name_or_id
        by_id = text.removeprefix("sha256:")
        if 4 <= len(by_id) <= 64 and all(c in "0123456789abcdef" for c in by_id) and "@" not in text:
            matches = {image_id(i): i for i, _ in self._walk() if digest_hex(image_id(i)).startswith(by_id)}
            matches = matches or {
                image_id(i): i for i, _ in self._walk() if text.startswith("sha256:") and i.descriptor.digest == text
            }
            if len(matches) > 1:
                raise Invalid(f"image ID prefix {text} is ambiguous", code="ambiguous-id")
            if matches:
                return next(iter(matches.values()))
        if text.startswith("sha256:"):
            raise no_such_image(text)
        reference = parse_reference(text)
        try:
            return self.load(self._storage.images.get(reference.name).descriptor, platform)
        except NotFound as error:
            if error.code == "platform-not-found":
                raise
        if reference.digest:
            repository = f"{reference.registry}/{reference.repository}"
            for image in self._storage.images.walk():
                if image.descriptor.digest == reference.digest and image.name.startswith(
                    (repository + ":", repository + "@")
                ):
                    return self.load(image.descriptor, platform)
        if text in (HELLO, f"{HELLO}:latest"):
            return self._make_hello()
        raise no_such_image(reference.familiar)

    def _make_hello(self) -> StoredImage:
        """The built-in image, put in the store the first time somebody asks for it."""
        with self._lock:
            layer = io.BytesIO(hello_layer(host_platform().architecture))
            image = transfer.import_tar(
                self._storage,
                layer,
                parse_reference(HELLO),
                changes_config=RunConfig(cmd=["/hello"]),
                message="built into proa",
            )
            return self.load(image.descriptor)

    def _walk(self) -> builtins.list[tuple[StoredImage, str]]:
        out = []
        for image in self._storage.images.walk():
            try:
                out.append((self.load(image.descriptor), image.name))
            except (NotFound, Corrupt, Invalid):
                continue  # a name whose content is missing or for another platform only; `system check` names it
        return out

    def names_of(self, id: str) -> builtins.list[str]:  # noqa: A002
        """Every name of the image with that ID, canonical; a manifest digest stands for having none."""
        return [name for image, name in self._walk() if image_id(image) == id]

    def get(self, name_or_id: str) -> ImageRecord:
        """One image with all its names. Raises NotFound."""
        return self._record(self.find(name_or_id))

    def _record(self, stored: StoredImage, names: Sequence[str] | None = None) -> ImageRecord:
        if names is None:
            names = self.names_of(image_id(stored))
        layers = chain_ids(stored.config.rootfs.diff_ids)
        size = 0
        for chain_id in layers:
            try:
                size += self._storage.snapshots.usage(chain_id).size_bytes
            except NotFound:
                continue
        return ImageRecord(
            id=image_id(stored),
            manifest=stored.descriptor.digest,
            manifest_size=stored.descriptor.size,
            names=sorted(n for n in names if not n.startswith("sha256:")),
            config_raw=stored.config_raw,
            created=stored.config.created or "",
            size=size,
            platform=str(stored.config.platform),
            labels=dict(run_config(stored).labels or {}),
            containers=sum(1 for e in self._catalog if e.record.image_id == image_id(stored)),
            layers=list(stored.config.rootfs.diff_ids),
        )

    def list(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> builtins.list[ImageRecord]:
        """All images, newest first. Filters: dangling, reference, label, before, since, until. Raises Invalid."""
        groups: dict[str, tuple[StoredImage, builtins.list[str]]] = {}
        for stored, name in self._walk():
            groups.setdefault(image_id(stored), (stored, []))[1].append(name)
        records = [self._record(stored, names) for stored, names in groups.values()]
        for key, values in (filters or {}).items():
            records = self._filter(records, key, values)
        return sorted(records, key=lambda r: r.created, reverse=True)

    def _filter(self, records: Sequence[ImageRecord], key: str, values: Sequence[str]) -> builtins.list[ImageRecord]:
        if key == "dangling":
            want = values[0] in ("true", "1")
            return [r for r in records if (not r.names) is want]
        if key == "label":
            return [r for r in records if match_labels(r.labels, values)]
        if key == "reference":
            # Docker shows the names that match, not the image's other ones.
            matching = [[n for n in r.names if any(_matches(n, v) for v in values)] for r in records]
            return [
                msgspec.structs.replace(r, names=names) for r, names in zip(records, matching, strict=True) if names
            ]
        if key in ("before", "since"):
            created = parse_rfc3339(self.get(values[0]).created)
            older = key == "before"
            return [
                r
                for r in records
                if (parse_rfc3339(r.created) < created) is older and parse_rfc3339(r.created) != created
            ]
        if key == "until":
            return [r for r in records if parse_rfc3339(r.created) < until_time(values[0])]
        raise Invalid(f"invalid filter '{key}'", code="filter-invalid")

    def history(self, name_or_id: str) -> builtins.list[dict[str, object]]:
        """How the image came to be, newest first: id, created, created_by, size (bytes), comment, tags."""
        stored = self.find(name_or_id)
        record = self._record(stored)
        chain = iter(chain_ids(stored.config.rootfs.diff_ids))
        out: builtins.list[dict[str, object]] = []
        for entry in stored.config.history or []:
            size = 0
            if not entry.empty_layer and (chain_id := next(chain, None)):
                try:
                    size = self._storage.snapshots.usage(chain_id).size_bytes
                except NotFound:
                    size = 0
            out.append(
                {
                    "id": "<missing>",
                    "created": entry.created or "",
                    "created_by": entry.created_by,
                    "size": size,
                    "comment": entry.comment,
                    "tags": None,
                }
            )
        if not out:
            out = [
                {
                    "id": "",
                    "created": record.created,
                    "created_by": "",
                    "size": record.size,
                    "comment": "",
                    "tags": None,
                }
            ]
        out[-1].update(
            id=image_id(stored), tags=[parse_reference(n).familiar for n in record.names if "@" not in n] or None
        )
        return out[::-1]

    # Changing ----------------------------------------------------------------

    def tag(self, source: str, repository: str, tag: str = "") -> None:
        """Give an image another name. Raises NotFound, Invalid."""
        stored = self.find(source)
        reference = parse_reference(f"{repository}:{tag}" if tag else repository)
        if reference.digest:
            raise Invalid("refusing to create a tag with a digest reference", code="reference-invalid")
        with self._lock:
            self._storage.images.put(reference.name, self._descriptor_of(source, stored))
        self._events.publish("image", "tag", image_id(stored), {"name": reference.familiar})

    def _descriptor_of(self, source: str, stored: StoredImage) -> Descriptor:
        """What the source's own name points to: an index stays an index, so that a push sends what was pulled."""
        try:
            return self._storage.images.get(parse_reference(source).name).descriptor
        except ProaError:
            return stored.descriptor

    def name(self, stored: StoredImage, name: str) -> None:
        """Point `name` at an image; the image that had the name stays, untagged, while containers use it."""
        with self._lock:
            self._storage.images.put(name, stored.descriptor)

    def remove(self, name_or_id: str, *, force: bool = False, prune: bool = True) -> builtins.list[RemovedImage]:  # noqa: ARG002
        """Untag, and delete what then has no name and no container.

        By name: only that name goes while others remain. By ID: all names, by force when there are several.
        Raises NotFound, Conflict.
        """
        with self._lock:
            stored = self.find(name_or_id)
            names = self.names_of(image_id(stored))
            users = [e.record for e in self._catalog if e.record.image_id == image_id(stored)]
            target = self._name_meant(name_or_id, names)
            if target is not None:
                going = [target]
            else:
                repositories = {parse_reference(n).familiar_repository for n in names if not n.startswith("sha256:")}
                if len(repositories) > 1 and not force:
                    raise Conflict(
                        f"conflict: unable to delete {digest_hex(image_id(stored))[:12]} (must be forced) - "
                        "image is referenced in multiple repositories",
                        code="image-in-use",
                    )
                going = names
            last = set(going) == set(names)
            if last and users:
                running = [u for u in users if u.state.running]
                if running or not force:
                    user, how = (running[0], "cannot be forced") if running else (users[0], "must be forced")
                    id12, state = digest_hex(image_id(stored))[:12], "running" if running else "stopped"
                    if target:
                        what = f'remove repository reference "{name_or_id}" ({how}) - container {user.id[:12]} is using'
                        why = f"its referenced image {id12}"
                    else:
                        what = f"delete {id12} ({how}) - image is being used by {state}"
                        why = f"container {user.id[:12]}"
                    raise Conflict(f"conflict: unable to {what} {why}", code="image-in-use")
            out = []
            for name in going:
                self._storage.images.delete(name)
                if not name.startswith("sha256:"):
                    familiar = parse_reference(name).familiar
                    out.append(RemovedImage(untagged=familiar))
                    self._events.publish("image", "untag", image_id(stored), {"name": familiar})
            if last:
                if users:
                    self._storage.images.put(stored.descriptor.digest, stored.descriptor)
                else:
                    out.append(RemovedImage(deleted=image_id(stored)))
                    self._cache.pop(stored.descriptor.digest, None)
                    self._events.publish("image", "delete", image_id(stored), {"name": image_id(stored)})
        if last and not users:
            self._storage.collect()
        return out

    @staticmethod
    def _name_meant(text: str, names: Sequence[str]) -> str | None:
        try:
            name = parse_reference(text).name
        except Invalid:
            return None
        return name if name in names else None

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[builtins.list[RemovedImage], int]:
        """Remove dangling images, or with `dangling=false` all that no container uses; what went and bytes freed."""
        filters = dict(filters or {})
        dangling = filters.pop("dangling", ["true"])[0] in ("true", "1")
        out: builtins.list[RemovedImage] = []
        freed = 0
        for record in self.list(filters=filters):
            if record.containers or (dangling and record.names):
                continue
            freed += record.size
            out += self.remove(record.id, force=True)
        # What interrupted transfers left stays to be resumed, unless everything that is not needed is to go.
        rest = self._storage.collect(keep_interrupted_s=None if dangling else 0)
        return out, freed + rest.blob_bytes


def no_such_image(name: str) -> NotFound:
    """The error clients of Docker match on."""
    return NotFound(
        f"No such image: {name}", code="image-not-found", subject=name, hint=f"get it with `proa pull {name}`"
    )


def _matches(name: str, pattern: str) -> bool:
    reference = parse_reference(name)
    return fnmatchcase(reference.familiar, pattern) or fnmatchcase(reference.familiar_repository, pattern)
