"""Volumes: list, create, inspect, remove, prune."""

from __future__ import annotations

from proa.api.messages import NO_CONTENT, Outcome, Reply, Request, created, json_body
from proa.api.routes import Route
from proa.api.service import Service
from proa.api.translate import networks as translate
from proa.errors import Invalid


async def list_(service: Service, request: Request) -> Outcome:
    """`GET /volumes`; filters: name, driver, label, dangling."""
    filters = request.query.filters()
    unknown = sorted(set(filters) - {"name", "driver", "label", "dangling"})
    if unknown:
        raise Invalid(f"invalid filter '{unknown[0]}'", code="filter-invalid")
    volumes = service.engine.volumes

    def work() -> list[dict[str, object]]:
        found = volumes.list()
        if names := filters.get("name"):
            found = [v for v in found if any(name in v.name for name in names)]
        if drivers := filters.get("driver"):
            found = [v for v in found if v.driver in drivers]
        for label in filters.get("label", ()):
            key, equals, value = label.partition("=")
            found = [v for v in found if key in v.labels and (not equals or v.labels[key] == value)]
        if dangling := filters.get("dangling"):
            wanted = dangling[0].lower() in ("true", "1")
            found = [v for v in found if (not volumes.users(v.name)) is wanted]
        return [translate.volume(volume) for volume in found]

    return Reply(value={"Volumes": await service.pools.quick(work), "Warnings": None})


async def create(service: Service, request: Request) -> Outcome:
    """`POST /volumes/create`."""
    body = await json_body(request, optional=True)
    name, driver = body.get("Name", ""), body.get("Driver", "")
    options, labels = body.get("DriverOpts") or {}, body.get("Labels") or {}
    if not (isinstance(name, str) and isinstance(driver, str) and _texts(options) and _texts(labels)):
        raise Invalid("invalid volume: Name and Driver are texts, DriverOpts and Labels map texts", code="json-invalid")
    volume = await service.pools.change(
        service.engine.volumes.create, name, driver=driver or "local", options=options, labels=labels
    )
    return created(translate.volume(volume))


def _texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


async def inspect(service: Service, request: Request) -> Outcome:
    """`GET /volumes/{name}`."""
    return Reply(value=translate.volume(await service.pools.quick(service.engine.volumes.get, request["name"])))


async def remove(service: Service, request: Request) -> Outcome:
    """`DELETE /volumes/{name}`."""
    force = request.query.flag("force")
    await service.pools.change(service.engine.volumes.remove, request["name"], force=force)
    return NO_CONTENT


async def prune(service: Service, request: Request) -> Outcome:
    """`POST /volumes/prune`: unused anonymous ones, or with `all` every one, as always before API 1.42."""
    everything = request.query.filters().get("all", ["false"])[0].lower() in ("true", "1")
    names = await service.pools.change(service.engine.volumes.prune, all=everything or request.version < (1, 42))
    return Reply(value={"VolumesDeleted": names or None, "SpaceReclaimed": 0})


ROUTES = (
    Route("GET", "/volumes", list_),
    Route("POST", "/volumes/create", create),
    Route("POST", "/volumes/prune", prune),
    Route("GET", "/volumes/{name}", inspect),
    Route("DELETE", "/volumes/{name}", remove),
)
