"""Images in registries, looked at and changed there: Docker's two operations, and proa's own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from proa.api.messages import Outcome, Reply, Request
from proa.api.operations.transfer_streams import Report, cancellable
from proa.api.operations.transfers import joined
from proa.api.routes import Route
from proa.api.service import Service
from proa.errors import Invalid

if TYPE_CHECKING:
    from proa.transfer import Credentials

SOURCE_AUTH = "x-proa-source-auth"


def _credentials(request: Request, header: str = "x-registry-auth") -> Credentials | None:
    from proa.transfer import credentials_from_header

    return credentials_from_header(request.headers.get(header, ""))


def _name(request: Request, parameter: str = "name") -> str:
    name = request.query.text(parameter)
    if not name:
        raise Invalid(f"no image was named by the parameter {parameter}", code="names-missing")
    return name


async def distribution(service: Service, request: Request) -> Outcome:
    """`GET /distribution/{name}/json`: what a registry has under a name."""
    from proa.api.translate import remote_images as translate

    image = await service.pools.slow(
        service.engine.remote_images.inspect, request["name"], credentials=_credentials(request)
    )
    return Reply(value=translate.distribution(image))


async def search(service: Service, request: Request) -> Outcome:
    """`GET /images/search`."""
    from proa.api.translate import remote_images as translate

    query = request.query
    limit = query.number("limit", 0)
    found = await service.pools.slow(
        service.engine.remote_images.search,
        query.text("term"),
        limit=limit or 25,
        filters=query.filters(),
        credentials=_credentials(request),
    )
    return Reply(value=translate.search(found))


async def inspect(service: Service, request: Request) -> Outcome:
    """`GET /proa/v1/registry/image?name=`: an image's documents; with `raw`, the bytes of what the name points to."""
    from proa.api.translate import remote_images as translate

    engine, name = service.engine, _name(request)
    image = await service.pools.slow(
        engine.remote_images.inspect,
        name,
        platform=request.query.platform(),
        credentials=_credentials(request),
    )
    if request.query.flag("raw"):
        return Reply(value=image.raw, content_type=image.root.media_type)
    names = engine.images.short_names
    return Reply(value=translate.inspect(image, names.parse(name), names))


async def tags(service: Service, request: Request) -> Outcome:
    """`GET /proa/v1/registry/tags?name=`: every tag of a repository."""
    found = await service.pools.slow(
        service.engine.remote_images.tags, _name(request), credentials=_credentials(request)
    )
    return Reply(value={"Tags": found})


async def delete(service: Service, request: Request) -> Outcome:
    """`DELETE /proa/v1/registry/image?name=`: a tag, or a manifest by its digest."""
    gone = await service.pools.slow(
        service.engine.remote_images.delete, _name(request), credentials=_credentials(request)
    )
    return Reply(value={"Deleted": gone})


async def copy(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/registry/copy?from=&to=`: from registry to registry, past the store; progress as of a push.

    X-Registry-Auth is for the destination, X-Proa-Source-Auth for the source.
    """
    source, destination, platform = _name(request, "from"), _name(request, "to"), request.query.platform()
    credentials = _credentials(request, SOURCE_AUTH), _credentials(request)

    def work(report: Report, stopped: threading.Event) -> object:
        return service.engine.remote_images.copy(
            source, destination, platform=platform, credentials=credentials, progress=report, stopped=stopped
        )

    return await cancellable(service, request, work)


async def reference(service: Service, request: Request) -> Outcome:
    """`GET /proa/v1/reference?name=`: how this engine reads a name that a user wrote."""
    query = request.query
    read = service.engine.images.short_names.parse(joined(_name(request), query.text("tag")))
    return Reply(value={"Name": read.name, "Registry": read.registry})


async def repositories(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`GET /proa/v1/repositories`: where the images here may be fetched again, as `registry/repository`."""
    return Reply(value={"Repositories": await service.pools.quick(service.engine.transfers.repositories)})


ROUTES = (
    Route("GET", "/distribution/{name:path}/json", distribution),
    Route("GET", "/images/search", search),
    Route("GET", "/proa/v1/registry/image", inspect),
    Route("DELETE", "/proa/v1/registry/image", delete),
    Route("GET", "/proa/v1/registry/tags", tags),
    Route("POST", "/proa/v1/registry/copy", copy),
    Route("GET", "/proa/v1/reference", reference),
    Route("GET", "/proa/v1/repositories", repositories),
)
