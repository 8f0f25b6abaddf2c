"""Images: find, list, tag and remove what the store has.

An image is a name for a manifest, or for an index of which some platforms' manifests are here. Its ID, to users of
Docker, is the digest of its config; of an index, that of the platform nearest to this machine. Images without a name
are kept under their manifest's digest.
"""

from __future__ import annotations

import builtins
import io
import threading
from collections.abc import Mapping, Sequence

from proa import transfer
from proa.engine.catalog import Catalog
from proa.engine.events import Events
from proa.engine.hello import NAME as HELLO
from proa.engine.hello import hello_layer
from proa.engine.image_filters import filter_images
from proa.engine.image_removal import ImageRemoval
from proa.engine.types import Container, ImageRecord, RemovedImage
from proa.errors import Corrupt, Invalid, NotFound, ProaError, Unsupported
from proa.oci import (
    DOCKER_NAMES,
    Descriptor,
    Digest,
    Platform,
    Reference,
    RunConfig,
    ShortNames,
    chain_ids,
    digest_hex,
    host_platform,
    nearest,
    parse_platform,
    parse_reference,
)
from proa.storage import Storage, unpack_image
from proa.storage.layers.names import display
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

    def __init__(
        self, storage: Storage, catalog: Catalog, events: Events, short_names: ShortNames = DOCKER_NAMES
    ) -> None:
        self._storage = storage
        self._catalog = catalog
        self._events = events
        self.short_names = short_names
        self.lock = threading.RLock()
        self._cache: dict[str, StoredImage] = {}
        self.removal = ImageRemoval(self, storage, catalog, events)

    # Reading -----------------------------------------------------------------

    def load(self, descriptor: Descriptor, platform: str = "") -> StoredImage:
        """The image a descriptor leads to, for a platform (default: this machine's, else what there is).

        Raises NotFound, Corrupt.
        """
        wanted = parse_platform(platform) if platform else None
        found = self._offered(descriptor)
        chosen = nearest([offered for offered, _ in found], wanted)
        if chosen is None and wanted:
            # An image that does not say what it is for is what its user says it is.
            chosen = next((n for n, (offered, _) in enumerate(found) if not offered.architecture), None)
        if chosen is None and wanted:
            there = ", ".join(str(offered) for offered, _ in found)
            raise NotFound(
                f"image with reference {descriptor.digest} was found but its platform ({there}) does not match the "
                f"specified platform ({platform})",
                code="platform-not-found",
            )
        return found[chosen or 0][1]

    def variants(self, descriptor: Descriptor) -> builtins.list[StoredImage]:
        """What is here of a manifest, or of the manifests of an index: never nothing. Raises NotFound, Corrupt."""
        return [image for _, image in self._offered(descriptor)]

    def _offered(self, descriptor: Descriptor) -> builtins.list[tuple[Platform, StoredImage]]:
        """The same with the platform of each: an index says more of it than some images themselves."""
        out: builtins.list[tuple[Platform, StoredImage]] = []
        for manifest in transfer.image_manifests(self._storage.content, descriptor):
            image = self._cache.get(manifest.digest)
            if image is None:
                image = transfer.read_image(self._storage.content, manifest)
                self._cache[manifest.digest] = image
            out.append((manifest.platform or image.config.platform, image))
        return out

    def unpack(self, stored: StoredImage) -> None:
        """Make the image's snapshots where they are missing, as those of other machines' platforms are at first."""
        chain_id = top_chain_id(stored)
        try:
            if chain_id:
                self._storage.snapshots.stat(chain_id)
        except NotFound:
            try:
                unpack_image(self._storage, stored.config, stored.manifest.layers)
            except NotFound:  # it was removed since it was found
                self._cache.pop(stored.descriptor.digest, None)
                raise no_such_image(image_id(stored)) from None

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
        if (descriptor := self.removal.descriptor(digest)) is not None:
            return self.load(descriptor)
        raise no_such_image(digest)

    def find(self, name_or_id: str, platform: str = "") -> StoredImage:
        """By reference, manifest digest, image ID or a unique prefix of it; names come first, as with Docker.

        Raises NotFound with Docker's words, Invalid for an ambiguous prefix or what is neither name nor ID.
        """
        text = name_or_id
        by_id = text.removeprefix("sha256:")
        is_id = 0 < len(by_id) <= 64 and all(c in "0123456789abcdef" for c in by_id)
        if not (is_id and (len(by_id) == 64 or by_id != text)):
            reference = self.short_names.parse(text)
            if (descriptor := self._pointed_to(reference)) is not None:
                return self.load(descriptor, platform)
            if text in (HELLO, f"{HELLO}:latest"):
                return self._make_hello()
            if not is_id:
                raise no_such_image(self.short_names.familiar(reference))
        found = {image_id(i): i for i, _ in self._walk() if digest_hex(image_id(i)).startswith(by_id)}
        if not found and by_id != text:
            found = {image_id(i): i for i, _ in self._walk() if i.descriptor.digest == text}
        if len(found) > 1:
            raise Invalid(f"image ID prefix {text} is ambiguous", code="ambiguous-id")
        if not found:
            raise no_such_image(text)
        image = next(iter(found.values()))
        return self.load(image.descriptor, platform)

    def _pointed_to(self, reference: Reference) -> Descriptor | None:
        """What a name points to. A digest also names the image that was pulled by tag and had it."""
        try:
            return self._storage.images.get(reference.name).descriptor
        except NotFound:
            pass
        if reference.digest:
            repository = f"{reference.registry}/{reference.repository}"
            for image in self._storage.images.walk():
                if not image.name.startswith((repository + ":", repository + "@")):
                    continue
                if reference.digest in (image.descriptor.digest, transfer.origin_digest(image.descriptor)):
                    return image.descriptor
        return None

    def _make_hello(self) -> StoredImage:
        """The built-in image, put in the store the first time somebody asks for it."""
        with self.lock:
            layer = io.BytesIO(hello_layer(host_platform().architecture))
            image = transfer.import_tar(
                self._storage,
                layer,
                self.short_names.parse(HELLO),
                changes_config=RunConfig(cmd=["/hello"]),
                message="built into proa",
            )
            return self.load(image.descriptor)

    def _walk(self) -> builtins.list[tuple[StoredImage, str]]:
        """Every image with each of its names, all platforms of an index."""
        out = []
        for image in self._storage.images.walk():
            try:
                out += [(variant, image.name) for variant in self.variants(image.descriptor)]
            except (NotFound, Corrupt, Invalid, Unsupported):
                continue  # a name whose content is missing, or no image; `system check` names it
        return out

    def names_of(self, id: str) -> builtins.list[str]:  # noqa: A002
        """Every name of the image with that ID, canonical; a manifest digest stands for having none."""
        return [name for image, name in self._walk() if image_id(image) == id]

    def get(self, name_or_id: str, platform: str = "") -> ImageRecord:
        """One image with all its names. Raises NotFound."""
        return self._record(self.find(name_or_id, platform))

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
        ids, digests, parent, tagged = {image_id(stored)}, [], "", 0.0
        for name in names:
            try:
                named = self._storage.images.get(name)
                descriptor = named.descriptor
                ids |= {image_id(variant) for variant in self.variants(descriptor)}
            except ProaError:
                continue  # gone meanwhile
            parent = parent or transfer.parent_id(descriptor)
            if not name.startswith("sha256:"):
                tagged = max(tagged, named.updated)
                reference = parse_reference(name)
                digest = transfer.origin_digest(descriptor) or descriptor.digest
                digests.append(f"{reference.registry}/{reference.repository}@{digest}")
        return ImageRecord(
            id=image_id(stored),
            manifest=stored.descriptor.digest,
            manifest_size=stored.descriptor.size,
            names=sorted(n for n in names if not n.startswith("sha256:")),
            digests=list(dict.fromkeys(digests)),
            config_raw=stored.config_raw,
            created=stored.config.created or "",
            size=size,
            platform=str(stored.config.platform),
            labels=dict(run_config(stored).labels or {}),
            containers=sum(1 for e in self._catalog if e.record.image_id in ids),
            layers=list(stored.config.rootfs.diff_ids),
            parent=parent,
            tagged=tagged,
        )

    def list(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> builtins.list[ImageRecord]:
        """All images, newest first. Filters: see image_filters. Raises Invalid, NotFound."""
        groups: dict[str, tuple[StoredImage, builtins.list[str]]] = {}
        for image in self._storage.images.walk():
            try:
                stored = self.load(image.descriptor)
            except (NotFound, Corrupt, Invalid, Unsupported):
                continue
            groups.setdefault(image_id(stored), (stored, []))[1].append(image.name)
        records = [self._record(stored, names) for stored, names in groups.values()]
        for key, values in (filters or {}).items():
            records = filter_images(
                records, key, values, created_of=lambda name: self.get(name).created, short_names=self.short_names
            )
        return sorted(records, key=lambda r: r.created, reverse=True)

    def history(self, name_or_id: str, platform: str = "") -> builtins.list[dict[str, object]]:
        """How the image came to be, newest first: id, created, created_by, size (bytes), comment, tags."""
        stored = self.find(name_or_id, platform)
        record = self._record(stored)
        chain = iter(chain_ids(stored.config.rootfs.diff_ids))
        # What was built on an image that is here begins with its history: those steps have its ID and names.
        known = {tuple(map(repr, image.config.history or [])): image_id(image) for image, _ in self._walk()}
        steps = stored.config.history or []
        out: builtins.list[dict[str, object]] = []
        for number, entry in enumerate(steps):
            size = 0
            if not entry.empty_layer and (chain_id := next(chain, None)):
                try:
                    size = self._storage.snapshots.usage(chain_id).size_bytes
                except NotFound:
                    size = 0
            out.append(
                {
                    "id": (base := known.get(tuple(map(repr, steps[: number + 1])))) or "<missing>",
                    "created": entry.created or "",
                    "created_by": entry.created_by,
                    "size": size,
                    "comment": entry.comment,
                    "tags": self._tags_of(base) if base else None,
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
        out[-1].update(id=image_id(stored), tags=self._tags_of(image_id(stored)))
        return out[::-1]

    def _tags_of(self, id: str) -> builtins.list[str] | None:  # noqa: A002
        names = [name for name in self.names_of(id) if "@" not in name and not name.startswith("sha256:")]
        return sorted(self._familiar(name) for name in names) or None

    def changes(self, name_or_id: str, base: str = "", platform: str = "") -> builtins.list[tuple[int, str]]:
        """What an image's files change of those of `base`, or its uppermost layer of the layers below: (kind, path).

        Kinds: 0 modified, 1 added, 2 deleted. Raises NotFound.
        """
        from proa.storage.layers.differences import differences

        with self._storage.leases.hold("image diff"):
            after = self._directories(self.find(name_or_id, platform))
            before = self._directories(self.find(base, platform)) if base else after[1:]
            return [(kind, "/" + display(path)) for kind, path in differences(before, after)]

    def _directories(self, stored: StoredImage) -> builtins.list[str]:
        self.unpack(stored)
        chain = top_chain_id(stored)
        return self._storage.snapshots.lowers(chain) if chain else []

    # Changing ----------------------------------------------------------------

    def tag(self, source: str, repository: str, tag: str = "") -> None:
        """Give an image another name. Raises NotFound, Invalid."""
        stored = self.find(source)
        reference = self.short_names.parse(f"{repository}:{tag}" if tag else repository)
        if reference.digest:
            raise Invalid("refusing to create a tag with a digest reference", code="reference-invalid")
        with self.lock:
            self._storage.images.put(reference.name, self._descriptor_of(source, stored))
        self._events.publish("image", "tag", image_id(stored), {"name": self.short_names.familiar(reference)})

    def _descriptor_of(self, source: str, stored: StoredImage) -> Descriptor:
        """What the source's own name points to: an index stays an index, so that a push sends what was pulled."""
        try:
            return self._storage.images.get(self.short_names.parse(source).name).descriptor
        except ProaError:
            return stored.descriptor

    def name(self, stored: StoredImage, name: str) -> None:
        """Point `name` at an image; the image that had the name stays, untagged, while containers use it."""
        with self.lock:
            self._storage.images.put(name, stored.descriptor)

    def remove(
        self, name_or_id: str, *, force: bool = False, platforms: Sequence[str] = ()
    ) -> builtins.list[RemovedImage]:
        """Untag, and delete what then has no name, see image_removal; or only some platforms of a name's index.

        Raises NotFound, Conflict, Invalid.
        """
        if platforms:
            return self.removal.remove_platforms(name_or_id, platforms, force=force)
        return self.removal.remove(name_or_id, force=force)

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[builtins.list[RemovedImage], int]:
        """Remove dangling images, or with `dangling=false` all that no container uses; what went and bytes freed."""
        return self.removal.prune(filters)

    def named(self, text: str) -> tuple[str, Descriptor]:
        """The canonical name that a text is, and what it points to. Raises NotFound, also for an ID."""
        name = self.short_names.parse(text).name
        try:
            return name, self._storage.images.get(name).descriptor
        except NotFound:
            raise no_such_image(text) from None

    def id_of(self, stored: StoredImage) -> Digest:
        """The image ID."""
        return image_id(stored)

    def users(self, names: Sequence[str], id: str) -> builtins.list[Container]:  # noqa: A002
        """The containers of an image with that ID and these names, or of another platform under them."""
        ids = self._ids_below(names) | {id}
        return [e.record for e in self._catalog if e.record.image_id in ids]

    def forget(self, stored: StoredImage) -> None:
        """Drop what is kept in memory about an image that was deleted."""
        self._cache.pop(stored.descriptor.digest, None)

    def _ids_below(self, names: Sequence[str]) -> set[str]:
        """The IDs of all platforms of what these names point to."""
        return {image_id(image) for image, name in self._walk() if name in names}

    def _familiar(self, name: str) -> str:
        return self.short_names.familiar(parse_reference(name))

    def names_meant(self, text: str, names: Sequence[str]) -> builtins.list[str]:
        """Which of an image's names a text is: one, or by digest all of its repository; none when it is an ID."""
        try:
            reference = self.short_names.parse(text)
        except Invalid:
            return []
        if reference.name in names:
            return [reference.name]
        repository = f"{reference.registry}/{reference.repository}"
        return [n for n in names if reference.digest and n.startswith((repository + ":", repository + "@"))]


def no_such_image(name: str) -> NotFound:
    """The error clients of Docker match on."""
    return NotFound(
        f"No such image: {name}", code="image-not-found", subject=name, hint=f"get it with `proa pull {name}`"
    )
