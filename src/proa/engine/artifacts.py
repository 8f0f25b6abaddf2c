"""OCI artifacts: files of any kind under names, here and in registries (image-spec manifest.md, "Guidelines")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from proa import transfer
from proa.errors import Conflict, Invalid, NotFound, ProaError
from proa.oci import MANIFEST_LIMIT, Descriptor, Manifest, encode, media_types, parse_manifest
from proa.storage import read_blob, write_blob
from proa.transfer import Credentials, Progress
from proa.transfer.progress import ProgressEvent, silent
from proa.transfer.stored_image import plain

if TYPE_CHECKING:
    from proa.engine.engine import Engine

TITLE = "org.opencontainers.image.title"
DEFAULT_TYPE = "application/vnd.unknown.artifact.v1"
DEFAULT_FILE_TYPE = "application/octet-stream"
_PIECE = 1 << 20
_IMAGE_CONFIGS = (media_types.OCI_CONFIG, media_types.DOCKER_CONFIG)


class Artifact(msgspec.Struct, rename="pascal", kw_only=True):
    """One artifact: its name as users write it, digest, type, bytes in files, and the descriptors of those."""

    name: str
    digest: str
    type: str
    size: int
    annotations: dict[str, str] = {}
    files: list[dict[str, object]] = []


class Artifacts:
    """The artifacts of one engine. They share names with images, as in a registry."""

    def __init__(self, engine: Engine) -> None:
        self._storage = engine.storage
        self._images = engine.images
        self._names = engine.images.short_names
        self._registries = engine.config.registries

    def list(self) -> list[Artifact]:
        """All artifacts by name; damaged ones are left to `system check`."""
        out = []
        for image in self._storage.images.walk():
            try:
                out.append(self._artifact(image.name, self._manifest(image.descriptor), image.descriptor))
            except ProaError:
                continue
        return out

    def get(self, name: str) -> Artifact:
        """One artifact. Raises NotFound, Invalid for an image."""
        found = self._find(name)
        return self._artifact(self._names.parse(name).name, self._manifest(found), found)

    def raw(self, name: str) -> bytes:
        """Its manifest's bytes. Raises as get."""
        descriptor = self._find(name)
        self._manifest(descriptor)
        return read_blob(self._storage.content, descriptor, MANIFEST_LIMIT)

    def add(
        self,
        name: str,
        title: str,
        stream: BinaryIO,
        *,
        type: str = "",  # noqa: A002
        file_type: str = "",
        annotations: Mapping[str, str] | None = None,
        append: bool = False,
    ) -> str:
        """Store one file of an artifact and return the artifact's digest.

        append: to the artifact that is there; else the name must be free, or Conflict is raised.
        Raises Invalid for a bad name or title, Exhausted.
        """
        reference = self._names.parse(name)
        if not title or "/" in title or title in (".", "..") or any(ord(c) < 32 for c in title) or len(title) > 255:
            raise Invalid(f"{title!r:.100} is no file name", code="artifact-title", subject=title[:100])
        stored = transfer.Stored(self._storage.content)
        with self._storage.leases.hold("artifact"):
            with stored.begin_unknown("artifact") as ingest:
                while piece := stream.read(_PIECE):
                    ingest.write(piece)
                size = ingest.offset
                digest = ingest.commit()
            file = Descriptor(
                media_type=file_type or DEFAULT_FILE_TYPE,
                digest=digest,
                size=size,
                annotations={TITLE: title, **(annotations or {})},
            )
            with self._images.lock:
                manifest = self._base(name, type, append=append)
                if any((d.annotations or {}).get(TITLE) == title for d in manifest.layers):
                    raise Conflict(f"{name} has a file {title} already", code="artifact-title", subject=title)
                manifest = msgspec.structs.replace(manifest, layers=[*manifest.layers, file])
                descriptor = self._storage.write_document(encode(manifest), media_types.OCI_MANIFEST)
                self._storage.images.put(reference.name, descriptor)
        return descriptor.digest

    def open(self, name: str, title: str = "") -> tuple[str, BinaryIO]:
        """A file's title and a verifying reader of it; without a title, of the only one. Raises NotFound, Conflict."""
        layers = self._manifest(self._find(name)).layers
        chosen = [d for d in layers if not title or title in ((d.annotations or {}).get(TITLE), d.digest)]
        if not chosen:
            raise NotFound(f"{name} has no file {title}", code="artifact-file-not-found", subject=title)
        if len(chosen) > 1:
            raise Conflict(f"{name} has {len(chosen)} files: choose one", code="artifact-ambiguous", subject=name)
        return _title(chosen[0]), self._storage.content.open(chosen[0])

    def pull(self, name: str, *, credentials: Credentials | None = None, progress: Progress = silent) -> str:
        """Bring an artifact from its registry; returns its digest. Raises Invalid for an image, and as a pull."""
        reference = self._names.parse(name)
        remote = transfer.Remote(reference, credentials, registries=self._registries)
        try:
            with self._storage.leases.hold(f"pull {reference.name}"):
                root = remote.resolve()
                self._check(name, parse_manifest(remote.read(root), root.media_type))
                progress(ProgressEvent(status=f"Pulling from {reference.repository}", id=str(reference.object)))
                transfer.copy(remote, transfer.Stored(self._storage.content), root, progress=progress)
                self._storage.images.put(reference.name, plain(root))
        finally:
            remote.close()
        progress(ProgressEvent(status=f"Digest: {root.digest}"))
        return root.digest

    def push(self, name: str, *, credentials: Credentials | None = None, progress: Progress = silent) -> str:
        """Send an artifact to the registry in its name; returns its digest. Raises as a push."""
        descriptor = self._find(name)
        self._manifest(descriptor)
        reference = self._names.parse(name)
        remote = transfer.Remote(reference, credentials, registries=self._registries)
        try:
            with self._storage.leases.hold(f"push {reference.name}"):
                transfer.copy(transfer.Stored(self._storage.content), remote, descriptor, progress=progress)
        finally:
            remote.close()
        progress(ProgressEvent(status=f"Digest: {descriptor.digest}"))
        return descriptor.digest

    def remove(self, name: str) -> str:
        """Forget an artifact; returns its digest. Raises NotFound, Invalid for an image."""
        with self._images.lock:
            descriptor = self._find(name)
            self._manifest(descriptor)
            self._storage.images.delete(self._names.parse(name).name)
        self._images.removal.collect()
        return descriptor.digest

    def _find(self, name: str) -> Descriptor:
        try:
            return self._storage.images.get(self._names.parse(name).name).descriptor
        except NotFound:
            raise NotFound(f"No such artifact: {name}", code="artifact-not-found", subject=name) from None

    def _manifest(self, descriptor: Descriptor) -> Manifest:
        if not media_types.is_manifest(descriptor.media_type):
            raise Invalid(f"{descriptor.digest} is no artifact", code="not-an-artifact", subject=descriptor.digest)
        raw = read_blob(self._storage.unobserved, descriptor, MANIFEST_LIMIT)
        return self._check(descriptor.digest, parse_manifest(raw, descriptor.media_type))

    @staticmethod
    def _check(name: str, manifest: Manifest) -> Manifest:
        if manifest.config.media_type in _IMAGE_CONFIGS:
            raise Invalid(f"{name} is an image and no artifact", code="not-an-artifact", subject=name)
        return manifest

    def _base(self, name: str, type: str, *, append: bool) -> Manifest:  # noqa: A002
        try:
            descriptor = self._find(name)
        except NotFound:
            config = write_blob(self._storage.content, b"{}", media_types.OCI_EMPTY)
            return Manifest(
                schema_version=2,
                media_type=media_types.OCI_MANIFEST,
                artifact_type=type or DEFAULT_TYPE,
                config=config,
                layers=[],
            )
        if not append:
            raise Conflict(f"{name} is there already", code="name-in-use", hint="use --append to add files to it")
        return self._manifest(descriptor)

    def _artifact(self, name: str, manifest: Manifest, descriptor: Descriptor) -> Artifact:
        return Artifact(
            name=self._names.familiar(self._names.parse(name)) if not name.startswith("sha256:") else name,
            digest=descriptor.digest,
            type=manifest.artifact_type or manifest.config.media_type,
            size=sum(layer.size for layer in manifest.layers),
            annotations=manifest.annotations or {},
            files=[
                {"Title": _title(d), "Digest": d.digest, "Size": d.size, "MediaType": d.media_type}
                for d in manifest.layers
            ],
        )


def _title(descriptor: Descriptor) -> str:
    """What a file is called: the last part of its title, which anyone may have written."""
    title = (descriptor.annotations or {}).get(TITLE, "").rpartition("/")[2]
    odd = title in ("", ".", "..") or any(ord(c) < 32 for c in title)
    return descriptor.digest.replace(":", "-") if odd else title
