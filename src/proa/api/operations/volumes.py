"""Volumes: list, create, inspect, remove, prune; and what Docker lacks: export, import, clone."""

from __future__ import annotations

from proa.api.messages import NO_CONTENT, TAR, Outcome, Reply, Request, created, json_body
from proa.api.operations.transfer_streams import Upload, download
from proa.api.routes import Route
from proa.api.service import Service
from proa.api.translate import networks as translate
from proa.engine.filters import match_labels
from proa.engine.volumes import Volume
from proa.errors import Conflict, Corrupt, Invalid, NotFound


async def list_(service: Service, request: Request) -> Outcome:
    """`GET /volumes`; filters: name, driver, label, dangling, orphan."""
    filters = request.query.filters()
    unknown = sorted(set(filters) - {"name", "driver", "label", "dangling", "orphan"})
    if unknown:
        raise Invalid(f"invalid filter '{unknown[0]}'", code="filter-invalid")
    engine = service.engine
    volumes = engine.volumes

    def orphaned(volume: Volume) -> bool:
        """Made for a container that is gone, and nobody else's."""
        return volume.anonymous and not volumes.users(volume.name)

    def work() -> list[dict[str, object]]:
        found = volumes.list()
        if names := filters.get("name"):
            found = [v for v in found if any(name in v.name for name in names)]
        if drivers := filters.get("driver"):
            found = [v for v in found if v.driver in drivers]
        if labels := filters.get("label"):
            found = [v for v in found if match_labels(v.labels, labels)]
        if dangling := filters.get("dangling"):
            wanted = _truth("dangling", dangling[0])
            found = [v for v in found if (not volumes.users(v.name)) is wanted]
        if orphan := filters.get("orphan"):
            wanted = _truth("orphan", orphan[0])
            found = [v for v in found if orphaned(v) is wanted]
        return [translate.volume(volume) for volume in found]

    return Reply(value={"Volumes": await service.pools.quick(work), "Warnings": None})


def _truth(name: str, text: str) -> bool:
    if text.lower() not in ("true", "1", "t", "false", "0", "f"):
        raise Invalid(f"invalid filter '{name}={text}'", code="filter-invalid")
    return text.lower() in ("true", "1", "t")


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
    """`POST /volumes/prune`: unused anonymous volumes, and since 1.42 named ones only with the filter all."""
    filters = request.query.filters()
    unknown = sorted(set(filters) - {"all", "label", "label!"})
    if unknown:
        raise Invalid(f"invalid filter '{unknown[0]}'", code="filter-invalid")
    everything = request.version < (1, 42) or any(_truth("all", text) for text in filters.get("all", ()))
    volumes = service.engine.volumes

    def work() -> tuple[list[str], int]:
        gone, freed = [], 0
        for volume in volumes.list():
            if volumes.users(volume.name) or not (everything or volume.anonymous):
                continue
            if not match_labels(volume.labels, filters.get("label", ())):
                continue
            if any(match_labels(volume.labels, [text]) for text in filters.get("label!", ())):
                continue
            try:
                size = max(volumes.size_bytes(volume), 0)
                volumes.remove(volume.name)
            except (Conflict, NotFound):
                continue  # somebody has just begun to use it, or was faster
            gone.append(volume.name)
            freed += size
        return gone, freed

    names, freed = await service.pools.change(work)
    return Reply(value={"VolumesDeleted": names, "SpaceReclaimed": freed})


async def export(service: Service, request: Request) -> Outcome:
    """`GET /proa/v1/volumes/{name}/export`: a tar archive of what is in it."""
    name = request["name"]
    await service.pools.quick(service.engine.volumes.get, name)
    return await download(service, lambda out: service.engine.volumes.export(name, out), content_type=TAR)


async def import_(service: Service, request: Request) -> Outcome:
    """`PUT /proa/v1/volumes/{name}/import`: fill a volume, new or empty, from a tar archive; or with `replace` any."""
    upload = Upload(request)
    replace = request.query.flag("replace")
    try:
        volume = await service.pools.slow(service.engine.volumes.load, request["name"], upload.file, replace=replace)
    except Corrupt as error:
        if not error.code.startswith("tar-"):
            raise
        raise Invalid(error.message, code=error.code) from None  # what was sent is broken, nothing of ours
    finally:
        await upload.finish()
    return created(translate.volume(volume))


async def clone(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/volumes/{name}/clone`: a new volume with the same contents, options and labels."""
    body = await json_body(request)
    target, labels = body.get("Name", ""), body.get("Labels") or {}
    if not (isinstance(target, str) and target and _texts(labels)):
        raise Invalid("a clone needs a Name; Labels map texts", code="json-invalid")
    return created(
        translate.volume(await service.pools.slow(service.engine.volumes.clone, request["name"], target, labels=labels))
    )


ROUTES = (
    Route("GET", "/volumes", list_),
    Route("POST", "/volumes/create", create),
    Route("POST", "/volumes/prune", prune),
    Route("GET", "/volumes/{name}", inspect),
    Route("DELETE", "/volumes/{name}", remove),
    Route("GET", "/proa/v1/volumes/{name}/export", export),
    Route("PUT", "/proa/v1/volumes/{name}/import", import_),
    Route("POST", "/proa/v1/volumes/{name}/clone", clone),
)
