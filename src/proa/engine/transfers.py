"""Transfers: pull, push, load, save and import, for clients that speak Docker's names."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from proa import transfer
from proa.engine.changes import apply_changes
from proa.engine.images import image_id, top_chain_id
from proa.engine.piping import piped
from proa.errors import Cancelled, Conflict, Invalid, NotFound, ProaError, TimedOut, Unavailable
from proa.oci import Descriptor, Reference, RunConfig, parse_platform, parse_reference
from proa.storage.layers import tar_tree
from proa.storage.layers.compress import compressing
from proa.storage.layers.encoders import parse_compression
from proa.transfer import Credentials, Progress
from proa.transfer.progress import silent

if TYPE_CHECKING:
    from proa.engine.engine import Engine


class Transfers:
    """Move images in and out. `progress` may be called from several threads, one at a time."""

    def __init__(self, engine: Engine) -> None:
        self._storage = engine.storage
        self._names = engine.images.short_names
        self._images = engine.images
        self._events = engine.events
        self._registries = engine.config.registries
        self._compression = engine.config.compression

    @contextmanager
    def _clean_failure(self) -> Iterator[None]:
        """Leave nothing of a transfer that failed for good; one that was cut off goes on with the next attempt."""
        try:
            yield
        except (Unavailable, TimedOut, Cancelled):
            raise
        except ProaError:
            self._images.removal.collect()
            raise

    def pull(
        self,
        reference: str,
        *,
        platform: str = "",
        all_platforms: bool = False,
        credentials: Credentials | None = None,
        insecure: bool = False,
        progress: Progress = silent,
        stopped: threading.Event | None = None,
    ) -> str:
        """Pull and return the image ID. insecure: also over plain http. all_platforms: keep a whole index.
        stopped: set it to cancel.

        Raises NotFound, Unauthorized, Unavailable, Corrupt …
        """
        parsed = self._names.parse(reference)
        # What was pulled stays until it was looked at, whoever removes its name meanwhile.
        with self._clean_failure(), self._storage.leases.hold(f"pull {parsed.name}"):
            image = transfer.pull(
                self._storage,
                parsed,
                platform=parse_platform(platform) if platform else None,
                all_platforms=all_platforms,
                credentials=credentials,
                insecure=insecure,
                registries=self._registries,
                progress=progress,
                stopped=stopped,
            )
            found = image_id(self._images.load(image.descriptor))
        self._tell("pull", parsed)
        return found

    def _tell(self, action: str, reference: Reference) -> None:
        name = {"name": self._names.familiar_repository(reference)}
        self._events.publish("image", action, self._names.familiar(reference), name)

    def pull_all_tags(
        self,
        repository: str,
        *,
        platform: str = "",
        all_platforms: bool = False,
        credentials: Credentials | None = None,
        progress: Progress = silent,
        stopped: threading.Event | None = None,
    ) -> list[str]:
        """Pull every tag of a repository, one after the other; returns the tags. Raises as `pull`."""
        parsed = self._names.parse(repository)
        remote = transfer.Remote(parsed, credentials, registries=self._registries)
        try:
            tags = transfer.list_tags(remote)
        finally:
            remote.close()
        for tag in tags:
            self.pull(
                f"{parsed.registry}/{parsed.repository}:{tag}",
                platform=platform,
                all_platforms=all_platforms,
                credentials=credentials,
                progress=progress,
                stopped=stopped,
            )
        return tags

    def push_all_tags(
        self,
        repository: str,
        *,
        platform: str = "",
        credentials: Credentials | None = None,
        compression: str = "",
        progress: Progress = silent,
        stopped: threading.Event | None = None,
    ) -> list[str]:
        """Push every name of a repository that has a tag; returns the tags. Raises NotFound, and as `push`."""
        parsed = self._names.parse(repository)
        own = [parse_reference(i.name) for i in self._storage.images.walk() if not i.name.startswith("sha256:")]
        names = [r for r in own if (r.registry, r.repository) == (parsed.registry, parsed.repository)]
        tags = [r.tag for r in names if r.tag and not r.digest]
        if not tags:
            raise NotFound(
                f"An image does not exist locally with the tag: {self._names.familiar_repository(parsed)}",
                code="image-not-found",
                subject=repository,
            )
        for tag in tags:
            self.push(
                f"{parsed.registry}/{parsed.repository}:{tag}",
                platform=platform,
                credentials=credentials,
                compression=compression,
                progress=progress,
                stopped=stopped,
            )
        return tags

    def repositories(self) -> list[str]:
        """Where the images here may be fetched again: `registry/repository` of each name, once."""
        named = [i.name for i in self._storage.images.walk() if not i.name.startswith("sha256:")]
        references = [parse_reference(name) for name in named]
        return sorted({f"{r.registry}/{r.repository}" for r in references})

    def refetch(
        self, descriptor: Descriptor, names: Sequence[str], credentials: Mapping[str, Credentials] | None = None
    ) -> None:
        """Fetch what is damaged in the store from the registries of the images that need it.

        credentials: by `registry/repository` or registry. Raises what the last of them said.
        """
        failure: ProaError = NotFound(f"no registry is known to have {descriptor.digest}", hint="load its image again")
        for name in names:
            if name.startswith("sha256:"):
                continue
            reference = parse_reference(name)
            known = credentials or {}
            own = known.get(f"{reference.registry}/{reference.repository}") or known.get(reference.registry)
            remote = transfer.Remote(reference, own, registries=self._registries)
            try:
                transfer.Stored(self._storage.content).replace(descriptor, remote)
                return
            except ProaError as error:
                failure = type(error)(error.message, hint=f"get it again: `proa pull {reference.familiar}`")
            finally:
                remote.close()
        raise failure

    def push(
        self,
        reference: str,
        *,
        platform: str = "",
        credentials: Credentials | None = None,
        insecure: bool = False,
        compression: str = "",
        progress: Progress = silent,
        stopped: threading.Event | None = None,
    ) -> str:
        """Push and return the digest of the manifest, or of an index unless one `platform` of it was chosen.

        compression: of layers that are plain yet, see parse_compression; default: the configuration's.
        Raises NotFound, Unauthorized, Denied, Unavailable …
        """
        parsed = self._names.parse(reference)
        try:
            self._storage.images.get(parsed.name)
        except NotFound:
            self._images.find(reference)  # raises what users expect, and makes the built-in image
        pushed = transfer.push(
            self._storage,
            parsed,
            platform=parse_platform(platform) if platform else None,
            credentials=credentials,
            insecure=insecure,
            registries=self._registries,
            compression=parse_compression(compression or self._compression),
            progress=progress,
            stopped=stopped,
        )
        self._tell("push", parsed)
        return pushed.digest

    def login(self, credentials: Credentials | None) -> str:
        """Return when the registry they were given for accepts them, with an identity token if it gives one.

        Raises Unauthorized, Unavailable, Invalid.
        """
        if credentials is None:
            raise Invalid("the login has neither a name nor a token", code="credentials-missing")
        host = credentials.server.removeprefix("https://").removeprefix("http://").partition("/")[0]
        # Docker's clients know Docker Hub by the address of its long gone index.
        registry = "docker.io" if host in ("", "index.docker.io") else host
        return transfer.check_login(registry, credentials, registries=self._registries)

    def load(self, stream: BinaryIO, *, platform: str = "", progress: Progress = silent) -> list[str]:
        """Load an archive and return the names it brought. Raises Invalid, Corrupt, Exhausted."""
        names = []
        wanted = parse_platform(platform) if platform else None
        with self._clean_failure():
            loaded = transfer.load(self._storage, stream, progress, platform=wanted)
        for image in loaded:
            names.append(image.name)
            self._events.publish("image", "load", image_id(self._images.load(image.descriptor)), {"name": image.name})
        return names

    def save(self, names: Sequence[str], out: BinaryIO, *, platform: str = "", compression: str = "none") -> None:
        """Write one archive of the images; a name keeps its tag, an ID saves without.

        compression: of the archive as a whole, see parse_compression. Raises NotFound, Invalid.
        """
        chosen = []
        for name in names:
            found = self._images.find(name, platform)
            self._events.publish("image", "save", image_id(found), {"name": image_id(found)})
            try:
                canonical = self._names.parse(name).name
            except Invalid:
                canonical = ""
            own = self._images.names_of(image_id(found))
            chosen.append(canonical if canonical in own else own[0])
        wanted = parse_platform(platform) if platform else None
        with compressing(out, parse_compression(compression)) as sink:
            transfer.save(self._storage, chosen, sink, platform=wanted)

    def rootfs(self, name: str, out: BinaryIO, *, platform: str = "") -> None:
        """Write an image's files, all layers in one, as a tar. Raises NotFound, Corrupt."""
        stored = self._images.find(name, platform)
        with self._storage.leases.hold("rootfs"):
            self._images.unpack(stored)
            chain = top_chain_id(stored)
            if chain:
                tar_tree(self._storage.snapshots.lowers(chain), out, nanoseconds=True)
            else:
                out.write(bytes(1024))

    def unpack_rootfs(self, name: str, directory: str, *, platform: str = "") -> None:
        """Write an image's files into an empty directory of the engine's machine, owners and attributes included.

        Raises NotFound, Invalid (no absolute path), Conflict (not empty), Denied.
        """
        target = Path(directory)
        if not target.is_absolute():
            raise Invalid(f"{directory!r} is not an absolute path", code="path-invalid", subject=directory)
        target.mkdir(mode=0o755, exist_ok=True)
        if any(target.iterdir()):
            raise Conflict(f"{directory} is not empty", code="directory-not-empty", subject=directory)
        with piped(lambda out: self.rootfs(name, out, platform=platform)) as stream:
            # A worker that can reach nothing but the directory, as for layers.
            self._storage.unpacker.unpack(stream, "none", target)

    def import_image(
        self,
        stream: BinaryIO,
        *,
        repository: str = "",
        tag: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
        source_date_epoch: int | None = None,
        progress: Progress = silent,
    ) -> str:
        """Make an image of a tar and return its ID; `source_date_epoch` as in commit. Raises Invalid, Corrupt."""
        reference = self._names.parse(f"{repository}:{tag}" if tag else repository) if repository else None
        config = apply_changes(RunConfig(), changes)
        with self._clean_failure():
            image = transfer.import_tar(
                self._storage,
                stream,
                reference,
                changes_config=config,
                message=message or "Imported from -",
                platform=parse_platform(platform) if platform else None,
                source_date_epoch=source_date_epoch,
                progress=progress,
            )
        found = image_id(self._images.load(image.descriptor))
        self._events.publish(
            "image", "import", found, {"name": self._names.familiar(reference) if reference else found}
        )
        return found
