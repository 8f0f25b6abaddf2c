"""Images: list, inspect, history, tag, remove, prune, commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proa.api.messages import NO_CONTENT, Outcome, Reply, Request, created, json_body, typed
from proa.api.routes import Route
from proa.api.service import Service
from proa.api.translate import images as translate
from proa.errors import Invalid

if TYPE_CHECKING:
    from proa.engine.types import ContainerConfig


async def list_(service: Service, request: Request) -> Outcome:
    """`GET /images/json`."""
    query = request.query
    filters = query.filters()
    if name := query.text("filter"):  # one name, before API 1.41
        filters["reference"] = [name]

    def work() -> list[dict[str, object]]:
        images = service.engine.images
        found = images.list(filters=filters)
        shared: dict[str, int] = {}
        if query.flag("shared-size"):
            from proa.engine.usage import shared_sizes

            shared = shared_sizes(service.engine.storage, images.list())
        out = [translate.summary(i, request.version, images.short_names, shared.get(i.id, -1)) for i in found]
        if query.flag("manifests") and request.version >= (1, 47):
            from proa.engine.image_manifests import manifest_summaries

            for entry, image in zip(out, found, strict=True):
                summaries = manifest_summaries(service.engine.storage, service.engine.catalog, image)
                entry["Manifests"] = [translate.manifest_summary(summary) for summary in summaries]
        return out

    return Reply(value=await service.pools.quick(work))


async def inspect(service: Service, request: Request) -> Outcome:
    """`GET /images/{name}/json`; `platform` chooses among those of a multi-platform image."""
    images = service.engine.images
    image = await service.pools.quick(images.get, request["name"], request.query.platform())
    return Reply(value=translate.inspect(image, request.version, images.short_names))


async def history(service: Service, request: Request) -> Outcome:
    """`GET /images/{name}/history`."""
    entries = await service.pools.quick(service.engine.images.history, request["name"], request.query.platform())
    return Reply(value=translate.history(entries))


async def tag(service: Service, request: Request) -> Outcome:
    """`POST /images/{name}/tag`."""
    query = request.query
    repository = query.text("repo")
    if not repository:
        raise Invalid("invalid reference format: no repository was given", code="reference-invalid")
    await service.pools.change(service.engine.images.tag, request["name"], repository, query.text("tag"))
    return Reply(status=201)


async def remove(service: Service, request: Request) -> Outcome:
    """`DELETE /images/{name}`; `platforms` removes only those of a multi-platform image."""
    query = request.query
    steps = await service.pools.change(
        service.engine.images.remove, request["name"], force=query.flag("force"), platforms=query.platforms()
    )
    return Reply(value=translate.removed(steps))


async def prune(service: Service, request: Request) -> Outcome:
    """`POST /images/prune`."""
    steps, freed = await service.pools.change(service.engine.images.prune, request.query.filters())
    return Reply(value={"ImagesDeleted": translate.removed(steps) or None, "SpaceReclaimed": freed})


async def commit(service: Service, request: Request) -> Outcome:
    """`POST /commit`: a container's changes as a new image."""
    from proa.engine.types import ContainerConfig

    query = request.query
    body = await json_body(request, optional=True)
    config: ContainerConfig | None = typed(body, ContainerConfig, "container config") if body else None
    container = await service.pools.quick(service.engine.containers.get, query.text("container"))
    image = await service.pools.slow(
        service.engine.commits.commit,
        container.id,
        repository=query.text("repo"),
        tag=query.text("tag"),
        message=query.text("comment"),
        author=query.text("author"),
        pause=query.flag("pause", True),
        changes=[line for text in query.texts("changes") for line in text.split("\n") if line.strip()],
        config=config,
        source_date_epoch=query.epoch(),
        compression=query.text("compression") or "none",
    )
    return created({"Id": image})


async def changes(service: Service, request: Request) -> Outcome:
    """`GET /proa/v1/images/{name}/changes?from=`: what an image changes of another, or of its lower layers."""
    query = request.query
    found = await service.pools.slow(
        service.engine.images.changes, request["name"], query.text("from"), query.platform()
    )
    return Reply(value=[{"Kind": kind, "Path": path} for kind, path in found])


async def mount(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/images/{name}/mount?target=`: hold the image, and say how to mount it."""
    query = request.query
    mounts = await service.pools.change(
        service.engine.image_mounts.prepare, request["name"], query.text("target"), platform=query.platform()
    )
    return Reply(value=[{"Type": m.type, "Source": m.source, "Options": list(m.options)} for m in mounts])


async def mounts(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`GET /proa/v1/image-mounts`: the images that are held for mounts."""
    return Reply(value=await service.pools.quick(service.engine.image_mounts.list))


async def unmount(service: Service, request: Request) -> Outcome:
    """`DELETE /proa/v1/image-mounts?target=`: let go of an image that was unmounted."""
    await service.pools.change(service.engine.image_mounts.release, request.query.text("target"))
    return NO_CONTENT


ROUTES = (
    Route("GET", "/proa/v1/images/{name:path}/changes", changes),
    Route("POST", "/proa/v1/images/{name:path}/mount", mount),
    Route("GET", "/proa/v1/image-mounts", mounts),
    Route("DELETE", "/proa/v1/image-mounts", unmount),
    Route("GET", "/images/json", list_),
    Route("POST", "/images/prune", prune),
    Route("GET", "/images/{name:path}/json", inspect),
    Route("GET", "/images/{name:path}/history", history),
    Route("POST", "/images/{name:path}/tag", tag),
    Route("DELETE", "/images/{name:path}", remove),
    Route("POST", "/commit", commit),
)
