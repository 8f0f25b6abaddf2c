"""Manifest lists and artifacts: `client.manifests` and `client.artifacts`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from proa.client.calls import decode, download, exchange, registry_headers, transfer
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
from proa.client.models import ArtifactDetails, Progress
from proa.client.sources import Source, pieces

__all__ = ["Artifacts", "AsyncArtifacts", "AsyncManifests", "Manifests"]


class ManifestsCore:
    """The operations on manifest lists: indexes put together here, of images for several platforms."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    @operation
    def create(
        self,
        name: str,
        images: Sequence[str] = (),
        *,
        amend: bool = False,
        annotations: Mapping[str, str] | None = None,
    ) -> Flow[str]:
        """Make a list of images and return its digest; what is not here is pulled. Raises Conflict, NotFound."""
        document = {"Images": list(images), "Amend": amend, "Annotations": dict(annotations or {})}
        return (yield from _changed(name, "", document, images))

    @operation
    def add(self, name: str, images: Sequence[str]) -> Flow[str]:
        """Add images, or those of other lists; returns the list's digest. Raises NotFound."""
        return (yield from _changed(name, "/add", {"Images": list(images)}, images))

    @operation
    def annotate(
        self,
        name: str,
        image: str,
        *,
        os: str = "",
        architecture: str = "",
        variant: str = "",
        os_version: str = "",
        os_features: Sequence[str] = (),
        annotations: Mapping[str, str] | None = None,
    ) -> Flow[str]:
        """Say what the entry `image` (a digest, or a name that leads to it) is for. Raises NotFound."""
        document = {
            "Image": image,
            "Os": os,
            "Architecture": architecture,
            "Variant": variant,
            "OsVersion": os_version,
            "OsFeatures": list(os_features),
            "Annotations": dict(annotations or {}),
        }
        return (yield from _changed(name, "/annotate", document, ()))

    @operation
    def remove_entry(self, name: str, image: str) -> Flow[str]:
        """Take an entry out of a list. Raises NotFound."""
        return (yield from _changed(name, "/remove", {"Image": image}, ()))

    @operation
    def inspect(self, name: str) -> Flow[dict[str, Any]]:
        """The index. Raises NotFound, Invalid for an image."""
        return decode((yield from exchange("GET", f"/proa/v1/manifests/{quote(name)}")), dict[str, Any])

    @operation
    def push(
        self, name: str, destination: str = "", *, progress: Callable[[Progress], None] | None = None
    ) -> Flow[str]:
        """Push a list with its images; returns its digest. Raises as a push does."""
        target = f"/proa/v1/manifests/{quote(name)}/push{query(to=destination or None)}"
        headers = yield from registry_headers(destination or name)
        return _digest((yield from transfer(Request("POST", target, headers=headers), progress)))

    @operation
    def remove(self, name: str) -> Flow[None]:
        """Delete a list. Raises NotFound, Invalid for an image."""
        yield from exchange("DELETE", f"/proa/v1/manifests/{quote(name)}")


class ArtifactsCore:
    """The operations on OCI artifacts: files of any kind under names."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    @operation
    def list(self) -> Flow[list[ArtifactDetails]]:
        """All artifacts."""
        return decode((yield from exchange("GET", "/proa/v1/artifacts")), list[ArtifactDetails])

    @operation
    def get(self, name: str) -> Flow[ArtifactDetails]:
        """One artifact. Raises NotFound, Invalid for an image."""
        return decode((yield from exchange("GET", f"/proa/v1/artifacts/{quote(name)}")), ArtifactDetails)

    @operation
    def add(
        self,
        name: str,
        source: Source,
        *,
        title: str = "",
        type: str = "",  # noqa: A002
        file_type: str = "",
        annotations: Mapping[str, str] | None = None,
        append: bool = False,
    ) -> Flow[str]:
        """Store a file (its path's last part is its title) and return the artifact's digest.

        Raises Conflict when there is an artifact of that name, unless `append`.
        """
        if not title and isinstance(source, Path):
            title = source.name
        asked = query(title=title, type=type, fileType=file_type, append=append)
        asked += "".join([f"&annotation={quote(f'{k}={v}')}" for k, v in (annotations or {}).items()])
        request = Request("POST", f"/proa/v1/artifacts/{quote(name)}/add{asked}", pieces(source))
        records = yield from transfer(request, None)
        return str(records[-1].get("status") or "") if records else ""

    @stream
    def read(self, name: str, title: str = "") -> Stream[bytes]:
        """A file's bytes, piece by piece: the one of this title or digest, or the only one. Raises NotFound."""
        yield from download(Request("GET", f"/proa/v1/artifacts/{quote(name)}/file{query(title=title)}"))

    @operation
    def pull(self, name: str, *, progress: Callable[[Progress], None] | None = None) -> Flow[str]:
        """Download an artifact; returns its digest. Raises as a pull of an image."""
        headers = yield from registry_headers(name)
        request = Request("POST", f"/proa/v1/artifacts/{quote(name)}/pull", headers=headers)
        return _digest((yield from transfer(request, progress)))

    @operation
    def push(self, name: str, *, progress: Callable[[Progress], None] | None = None) -> Flow[str]:
        """Upload an artifact; returns its digest. Raises as a push of an image."""
        headers = yield from registry_headers(name)
        request = Request("POST", f"/proa/v1/artifacts/{quote(name)}/push", headers=headers)
        return _digest((yield from transfer(request, progress)))

    @operation
    def remove(self, name: str) -> Flow[None]:
        """Delete an artifact. Raises NotFound, Invalid for an image."""
        yield from exchange("DELETE", f"/proa/v1/artifacts/{quote(name)}")


def _changed(name: str, what: str, document: dict[str, Any], images: Sequence[str]) -> Flow[str]:
    headers = (yield from registry_headers(images[0])) if images else ()
    body = yield from exchange("POST", f"/proa/v1/manifests/{quote(name)}{what}", document, headers=headers)
    return str(msgspec.json.decode(body)["Id"])


def _digest(records: Iterable[dict[str, Any]]) -> str:
    return next((str(r["aux"].get("Digest", "")) for r in reversed([*records]) if isinstance(r.get("aux"), dict)), "")


class Manifests(ManifestsCore, Blocking):
    """`client.manifests`."""

    _transport: Transport


class AsyncManifests(ManifestsCore, Awaiting):
    """`client.manifests`."""

    _transport: AsyncTransport


class Artifacts(ArtifactsCore, Blocking):
    """`client.artifacts`."""

    _transport: Transport


class AsyncArtifacts(ArtifactsCore, Awaiting):
    """`client.artifacts`."""

    _transport: AsyncTransport
