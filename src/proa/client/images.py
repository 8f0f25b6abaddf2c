"""Images: the collection and the one."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from proa.client.calls import decode, download, exchange, filters_text, registry_headers, transfer
from proa.client.flow import (
    AsyncTransport,
    Awaiting,
    Blocking,
    Flow,
    Request,
    Stream,
    Transport,
    operation,
    stream,
)
from proa.client.http import query, quote
from proa.client.models import (
    CHANGE_KINDS,
    Change,
    FoundRepository,
    ImageDetails,
    ImageLayer,
    ListedImage,
    Progress,
    PruneResult,
)
from proa.client.names import has_registry, split_tag
from proa.client.sources import Source, pieces
from proa.client.trees import pack
from proa.errors import Corrupt, NotFound

__all__ = ["AsyncImage", "AsyncImages", "Image", "Images"]

I = TypeVar("I", bound="ImageCore")  # noqa: E741


class ImageCore:
    """The operations of an image."""

    def __init__(self, transport: Any, body: bytes) -> None:
        self._transport = transport
        self._body = body
        self.details = decode(body, ImageDetails)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id.removeprefix('sha256:')[:12]} {' '.join(self.tags)}>"

    @property
    def id(self) -> str:
        """The digest of its config."""
        return self.details.id

    @property
    def tags(self) -> list[str]:
        """Its names with tags."""
        return self.details.repo_tags or []

    @property
    def digests(self) -> list[str]:
        """Its names with the digests of its manifest."""
        return self.details.repo_digests or []

    @property
    def raw(self) -> dict[str, Any]:
        """The whole inspect document."""
        document: dict[str, Any] = msgspec.json.decode(self._body)
        return document

    @operation
    def tag(self, name: str) -> Flow[None]:
        """Give it another name, taking it from the image that had it. Raises Invalid for a bad name."""
        repository, tag = split_tag(name)
        yield from exchange("POST", f"/images/{quote(self.id)}/tag{query(repo=repository, tag=tag)}")

    @operation
    def history(self) -> Flow[list[ImageLayer]]:
        """How it was made, newest step first."""
        return decode((yield from exchange("GET", f"/images/{quote(self.id)}/history")), list[ImageLayer])


class ImagesCore(Generic[I]):
    """The operations of the collection."""

    _image: ClassVar[type[Any]]

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    @operation
    def get(self, name: str) -> Flow[I]:
        """The image of this name, id or beginning of an id.

        Raises NotFound when there is none.
        """
        return (yield from self._get(name))

    @operation
    def list(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> Flow[builtins.list[I]]:
        """The images; `filters` are Docker's (`{"reference": ["debian:*"]}`)."""
        body = yield from exchange("GET", f"/images/json{query(filters=filters_text(filters))}")
        found = []
        for entry in decode(body, list[ListedImage]):
            try:
                found.append((yield from self._get(entry.id)))
            except NotFound:
                continue  # gone since
        return found

    @operation
    def pull(
        self,
        name: str,
        *,
        platform: str = "",
        all_platforms: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Flow[I]:
        """Download an image; credentials come from Docker's configuration file.

        all_platforms: keep all of a multi-platform image.
        progress: called with every step.
        Raises NotFound or Unauthorized as the registry says, Unavailable when it cannot be reached, Corrupt for wrong
        bytes.
        """
        repository, tag = split_tag(name, "latest")
        wanted = query(fromImage=repository, tag=tag, platform=platform, allPlatforms=all_platforms)
        headers = yield from registry_headers(name)
        yield from transfer(Request("POST", f"/images/create{wanted}", headers=headers), progress)
        mark = "@" if ":" in tag else ":"
        return (yield from self._get(f"{repository}{mark}{tag}"))

    @operation
    def push(self, name: str, *, platform: str = "", progress: Callable[[Progress], None] | None = None) -> Flow[str]:
        """Upload an image, or one platform of it; returns the digest of its manifest. Raises as `pull`."""
        repository, tag = split_tag(name, "latest")
        target = f"/images/{quote(repository)}/push{query(tag=tag, platform=platform)}"
        headers = yield from registry_headers(name)
        return (yield from self._sent(Request("POST", target, headers=headers), progress))

    @operation
    def copy(
        self,
        source: str,
        destination: str,
        *,
        platform: str = "",
        progress: Callable[[Progress], None] | None = None,
    ) -> Flow[str]:
        """Copy an image from registry to registry without storing it; returns the digest. Raises as `pull`."""
        asked = {"from": source, "to": destination, "platform": platform}
        of_source = yield from registry_headers(source, "X-Proa-Source-Auth")
        of_destination = yield from registry_headers(destination)
        target = f"/proa/v1/registry/copy{query(**asked)}"
        return (yield from self._sent(Request("POST", target, headers=(*of_source, *of_destination)), progress))

    @operation
    def tags(self, repository: str) -> Flow[builtins.list[str]]:
        """The tags that a repository has in its registry. Raises as `pull`."""
        headers = yield from registry_headers(repository)
        body = yield from exchange("GET", f"/proa/v1/registry/tags{query(name=repository)}", headers=headers)
        return decode(body, dict[str, builtins.list[str]])["Tags"]

    @operation
    def search(
        self, term: str, *, limit: int = 25, filters: Mapping[str, Sequence[str]] | None = None
    ) -> Flow[builtins.list[FoundRepository]]:
        """Repositories that match a term: of Docker Hub or the default registry, `host/term` of another.

        Raises Unsupported where nothing can be searched, and as `pull`.
        """
        headers = yield from registry_headers(term if has_registry(term) else "x")
        wanted = query(term=term, limit=limit, filters=filters_text(filters))
        body = yield from exchange("GET", f"/images/search{wanted}", headers=headers)
        return decode(body, builtins.list[FoundRepository])

    def _sent(self, request: Request, progress: Callable[[Progress], None] | None) -> Flow[str]:
        records = yield from transfer(request, progress)
        return next((str(r["aux"].get("Digest", "")) for r in reversed(records) if isinstance(r.get("aux"), dict)), "")

    @operation
    def load(self, source: Source, *, progress: Callable[[Progress], None] | None = None) -> Flow[builtins.list[I]]:
        """Read images from an archive of `save`, docker or podman: bytes, a path, an open file or pieces.

        A directory is an OCI layout, or what skopeo calls `dir:`.
        Raises Invalid or Corrupt for an archive that is none.
        """
        records = yield from transfer(Request("POST", "/images/load?quiet=1", pieces(source)), progress)
        texts = [str(record.get("stream") or "").strip() for record in records]
        marks = ("Loaded image ID: ", "Loaded image: ")
        names = [text.removeprefix(mark) for text in texts for mark in marks if text.startswith(mark)]
        found = []
        for name in names:
            found.append((yield from self._get(name)))  # noqa: PERF401 - a comprehension cannot yield
        return found

    @stream
    def save(self, *names: str) -> Stream[bytes]:
        """The bytes of an archive with these images, piece by piece. Raises NotFound for an unknown name."""
        yield from download(Request("GET", "/images/get?" + "&".join([f"names={quote(name)}" for name in names])))

    @stream
    def rootfs(self, name: str) -> Stream[bytes]:
        """An image's files, all layers in one, as a tar, piece by piece. Raises NotFound for an unknown name."""
        yield from download(Request("GET", f"/proa/v1/images/{quote(name)}/rootfs"))

    @operation
    def import_(self, source: Source, name: str = "", *, message: str = "", changes: Sequence[str] = ()) -> Flow[I]:
        """Make an image of one layer from a root file system: a directory, or a tar (plain, gzip, zstd, bzip2 or xz).

        name: `repository[:tag]`; changes: Dockerfile instructions such as `CMD ["sh"]`.
        Raises Invalid or Corrupt for a tar that is none.
        """
        repository, tag = split_tag(name, "latest") if name else ("", "")
        target = f"/images/create{query(fromSrc='-', repo=repository, tag=tag, message=message)}"
        target += "".join([f"&changes={quote(change)}" for change in changes])
        if isinstance(source, Path) and source.is_dir():
            source = pack(str(source), ".", whole=True)
        records = yield from transfer(Request("POST", target, pieces(source)), None)
        if not records:
            raise Corrupt("the engine did not say which image it made", code="bad-reply")
        return (yield from self._get(str(records[-1].get("status", "")).strip()))

    @operation
    def tag(self, source: str, name: str) -> Flow[None]:
        """Give an image another name. Raises NotFound, Invalid for a bad name."""
        repository, tag = split_tag(name)
        yield from exchange("POST", f"/images/{quote(source)}/tag{query(repo=repository, tag=tag)}")

    @operation
    def history(self, name: str) -> Flow[builtins.list[ImageLayer]]:
        """How an image was made, newest step first. Raises NotFound."""
        return decode((yield from exchange("GET", f"/images/{quote(name)}/history")), list[ImageLayer])

    @operation
    def changes(self, name: str, base: str = "") -> Flow[builtins.list[Change]]:
        """What an image changes of `base`, or its uppermost layer of those below. Raises NotFound."""
        tail = query(**({"from": base} if base else {}))
        body = yield from exchange("GET", f"/proa/v1/images/{quote(name)}/changes{tail}")
        return [
            Change(change["Path"], CHANGE_KINDS[change["Kind"]])
            for change in decode(body, builtins.list[dict[str, Any]])
        ]

    @operation
    def remove(self, name: str, *, force: bool = False) -> Flow[None]:
        """Remove a name, and the image with its last name. Raises NotFound, Conflict when a container needs it."""
        yield from exchange("DELETE", f"/images/{quote(name)}{query(force=force)}")

    @operation
    def prune(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> Flow[PruneResult]:
        """Remove images without a name; with `{"dangling": ["false"]}` all that no container uses."""
        body = yield from exchange("POST", f"/images/prune{query(filters=filters_text(filters))}")
        record = decode(body, dict[str, Any])
        removed = [r.get("Deleted") or r.get("Untagged", "") for r in record.get("ImagesDeleted") or ()]
        return PruneResult(removed, int(record.get("SpaceReclaimed") or 0))

    def _get(self, name: str) -> Flow[I]:
        body = yield from exchange("GET", f"/images/{quote(name)}/json")
        image: I = self._image(self._transport, body)
        return image


class Image(ImageCore, Blocking):
    """An image."""

    _transport: Transport


class AsyncImage(ImageCore, Awaiting):
    """An image whose operations are awaited."""

    _transport: AsyncTransport


class Images(ImagesCore[Image], Blocking):
    """`client.images`."""

    _transport: Transport
    _image = Image


class AsyncImages(ImagesCore[AsyncImage], Awaiting):
    """`client.images`."""

    _transport: AsyncTransport
    _image = AsyncImage
