"""Containers: list, create, inspect, rename, remove, prune, and what their file systems hold."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from proa.api.messages import JSON, NO_CONTENT, Outcome, Reply, Request, created, json_body
from proa.api.routes import Route
from proa.api.service import Service
from proa.api.translate import containers as translate
from proa.engine.types import Container, CreateRequest, CreateResult
from proa.errors import Invalid, NotFound

LISTS_KEPT = 16


async def list_(service: Service, request: Request) -> Outcome:
    """`GET /containers/json`.

    Monitoring asks for the same list many times a second: within one second, in which its words ("Up 5 seconds") stay
    the same, and as long as nothing happens, it gets the bytes made for the first.
    """
    query = request.query
    limit = max(query.number("limit", 0) or 0, 0)
    filters = query.filters()
    everything, with_sizes = query.flag("all"), query.flag("size")
    engine = service.engine
    asked = repr((everything, limit, filters))
    now = time.time()
    age = (engine.catalog.changes, engine.events.latest_ns, int(now))
    known = service.lists.get(asked)
    if known is not None and known[0] == age and not with_sizes:
        return Reply(value=known[1], content_type=JSON)

    def work() -> bytes:
        containers = engine.containers
        found = containers.list(all=everything, limit=limit, filters=filters)
        shown = [translate.summary(c, now, containers.sizes(c.id) if with_sizes else None) for c in found]
        return msgspec.json.encode(shown) + b"\n"

    answer = await (service.pools.change if with_sizes else service.pools.quick)(work)
    if not with_sizes:
        if len(service.lists) >= LISTS_KEPT:
            service.lists.clear()
        service.lists[asked] = (age, answer)
    return Reply(value=answer, content_type=JSON)


async def create(service: Service, request: Request) -> Outcome:
    """`POST /containers/create`: 404 for a missing image, which tells clients to pull it."""
    wanted = container_wanted(request, await json_body(request), request.query.text("name"), request.query.platform())
    result = await make_container(service, wanted)
    return created({"Id": result.id, "Warnings": result.warnings})


def container_wanted(request: Request, body: dict[str, Any], name: str, platform: str) -> CreateRequest:
    """What a request asks for by body and query. Raises Invalid."""
    wanted = translate.create_request(body, name, platform)
    if not wanted.config.image:
        raise Invalid("config cannot be empty: it names no image", code="image-missing")
    if request.door is not None and request.door.scope is not None:
        wanted.volume_labels = request.door.scope.labels
    return wanted


async def make_container(service: Service, wanted: CreateRequest) -> CreateResult:
    """Create it. Raises NotFound for a missing image and for nothing else, Invalid, Conflict."""
    try:
        return await service.pools.change(service.engine.containers.create, wanted)
    except NotFound as error:
        if error.code in ("image-not-found", "platform-not-found"):
            raise
        # Another container or a network, which pulling the image does not bring.
        raise Invalid(error.message, code=error.code, subject=error.subject, hint=error.hint) from None


async def inspect(service: Service, request: Request) -> Outcome:
    """`GET /containers/{id}/json`."""
    engine = service.engine
    with_sizes = request.query.flag("size")

    def work() -> tuple[Container, list[str], tuple[int, int] | None]:
        container = engine.containers.get(request["id"])
        return container, engine.execs.of(container.id), engine.containers.sizes(container.id) if with_sizes else None

    container, execs, sizes = await (service.pools.change if with_sizes else service.pools.quick)(work)
    return Reply(value=translate.inspect(container, request.version, execs=execs, sizes=sizes))


async def rename(service: Service, request: Request) -> Outcome:
    """`POST /containers/{id}/rename`."""
    name = request.query.text("name")
    if not name:
        raise Invalid("Neither old nor new names may be empty", code="name-missing")
    await service.pools.change(service.engine.containers.rename, request["id"], name)
    return NO_CONTENT


async def remove(service: Service, request: Request) -> Outcome:
    """`DELETE /containers/{id}`."""
    query = request.query
    if query.flag("link"):
        raise Invalid("links between containers do not exist: there is none to remove", code="links-unsupported")
    await service.pools.change(
        service.engine.containers.remove, request["id"], force=query.flag("force"), volumes=query.flag("v")
    )
    return NO_CONTENT


async def prune(service: Service, request: Request) -> Outcome:
    """`POST /containers/prune`."""
    gone, freed = await service.pools.change(service.engine.containers.prune, request.query.filters())
    return Reply(value={"ContainersDeleted": gone or None, "SpaceReclaimed": freed})


async def changes(service: Service, request: Request) -> Outcome:
    """`GET /containers/{id}/changes`."""
    found = await service.pools.change(service.engine.containers.changes, request["id"])
    return Reply(value=[{"Path": path, "Kind": kind} for kind, path in found])


ROUTES = (
    Route("GET", "/containers/json", list_),
    Route("POST", "/containers/create", create),
    Route("POST", "/containers/prune", prune),
    Route("GET", "/containers/{id}/json", inspect),
    Route("GET", "/containers/{id}/changes", changes),
    Route("POST", "/containers/{id}/rename", rename),
    Route("DELETE", "/containers/{id}", remove),
)
