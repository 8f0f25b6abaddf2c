"""proa's operations on manifest lists and artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from proa.api.messages import NO_CONTENT, Outcome, Reply, Request, created, json_body, typed
from proa.api.operations.transfer_streams import Report, download, progress, upload_progress
from proa.api.routes import Route
from proa.api.service import Service

if TYPE_CHECKING:
    from proa.transfer import Credentials, ProgressEvent

BINARY = "application/octet-stream"


def credentials(request: Request) -> Credentials | None:
    """What the client has for the registry. Raises Invalid."""
    from proa.transfer import credentials_from_header

    return credentials_from_header(request.headers.get("x-registry-auth", ""))


class ListChange(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of what changes a manifest list."""

    images: list[str] = []
    image: str = ""
    amend: bool = False
    annotations: dict[str, str] = {}
    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: list[str] = []


async def _change(request: Request) -> ListChange:
    return typed(await json_body(request, optional=True), ListChange, "manifest list")


async def list_create(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/manifests/{name}`: a list of images, or with Amend more in the list that is there."""
    body = await _change(request)
    digest = await service.pools.slow(
        service.engine.manifest_lists.create,
        request["name"],
        body.images,
        amend=body.amend,
        annotations=body.annotations,
        credentials=credentials(request),
    )
    return created({"Id": digest})


async def list_add(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/manifests/{name}/add`: Images more in the list."""
    body = await _change(request)
    digest = await service.pools.slow(
        service.engine.manifest_lists.add, request["name"], body.images, credentials=credentials(request)
    )
    return Reply(value={"Id": digest})


async def list_annotate(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/manifests/{name}/annotate`: say which platform the entry Image is for."""
    from proa.engine.types import PlatformChange

    body = await _change(request)
    change = PlatformChange(
        os=body.os,
        architecture=body.architecture,
        variant=body.variant,
        os_version=body.os_version,
        os_features=tuple(body.os_features),
    )
    digest = await service.pools.change(
        service.engine.manifest_lists.annotate, request["name"], body.image, change, body.annotations
    )
    return Reply(value={"Id": digest})


async def list_remove(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/manifests/{name}/remove`: take the entry Image out of the list."""
    body = await _change(request)
    digest = await service.pools.change(service.engine.manifest_lists.remove, request["name"], body.image)
    return Reply(value={"Id": digest})


async def list_push(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/manifests/{name}/push?to=&purge=`: push a list and its images."""
    query, auth = request.query, credentials(request)

    def work(report: Report) -> str:
        return service.engine.manifest_lists.push(
            request["name"], query.text("to"), credentials=auth, purge=query.flag("purge"), progress=report
        )

    return await progress(service, work)


async def list_inspect(service: Service, request: Request) -> Outcome:
    """`GET /proa/v1/manifests/{name}`: the index, byte for byte."""
    raw = await service.pools.quick(service.engine.manifest_lists.raw, request["name"])
    return Reply(value=raw, content_type="application/json")


async def list_delete(service: Service, request: Request) -> Outcome:
    """`DELETE /proa/v1/manifests/{name}`: forget a list."""
    await service.pools.change(service.engine.manifest_lists.delete, request["name"])
    return NO_CONTENT


async def artifacts(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`GET /proa/v1/artifacts`: every artifact."""
    return Reply(value=await service.pools.quick(service.engine.artifacts.list))


async def artifact(service: Service, request: Request) -> Outcome:
    """`GET /proa/v1/artifacts/{name}`: an artifact; with `raw`, its manifest byte for byte."""
    if request.query.flag("raw"):
        raw = await service.pools.quick(service.engine.artifacts.raw, request["name"])
        return Reply(value=raw, content_type="application/json")
    return Reply(value=await service.pools.quick(service.engine.artifacts.get, request["name"]))


async def artifact_add(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/artifacts/{name}/add?title=&type=&fileType=&append=&annotation=k=v`: the body is one file."""
    query = request.query
    notes = dict(text.partition("=")[::2] for text in query.texts("annotation"))

    def work(body: BinaryIO, report: Report) -> None:
        from proa.transfer import ProgressEvent

        digest = service.engine.artifacts.add(
            request["name"],
            query.text("title"),
            body,
            type=query.text("type"),
            file_type=query.text("fileType"),
            annotations=notes,
            append=query.flag("append"),
        )
        report(ProgressEvent(status=digest))

    return await upload_progress(service, request, work)


async def artifact_pull(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/artifacts/{name}/pull`: download an artifact from its registry."""
    auth = credentials(request)
    return await progress(service, lambda report: _move(service.engine.artifacts.pull, request, auth, report))


async def artifact_push(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/artifacts/{name}/push`: upload an artifact to its registry."""
    auth = credentials(request)
    return await progress(service, lambda report: _move(service.engine.artifacts.push, request, auth, report))


def _move(act: Any, request: Request, auth: Any, report: Report) -> None:
    from proa.transfer import ProgressEvent

    event: ProgressEvent = ProgressEvent(aux={"Digest": act(request["name"], credentials=auth, progress=report)})
    report(event)


async def artifact_file(service: Service, request: Request) -> Outcome:
    """`GET /proa/v1/artifacts/{name}/file?title=`: one file's bytes, verified to the last."""
    title, reader = await service.pools.quick(
        service.engine.artifacts.open, request["name"], request.query.text("title")
    )

    def work(out: BinaryIO) -> None:
        with reader:
            while data := reader.read(1 << 20):
                out.write(data)

    stream = await download(service, work, content_type=BINARY)
    return msgspec.structs.replace(stream, headers={"X-Artifact-Title": title.encode("ascii", "replace").decode()})


async def artifact_delete(service: Service, request: Request) -> Outcome:
    """`DELETE /proa/v1/artifacts/{name}`: remove an artifact."""
    return Reply(value={"Deleted": await service.pools.change(service.engine.artifacts.remove, request["name"])})


ROUTES = (
    Route("POST", "/proa/v1/manifests/{name:path}/add", list_add),
    Route("POST", "/proa/v1/manifests/{name:path}/annotate", list_annotate),
    Route("POST", "/proa/v1/manifests/{name:path}/remove", list_remove),
    Route("POST", "/proa/v1/manifests/{name:path}/push", list_push),
    Route("POST", "/proa/v1/manifests/{name:path}", list_create),
    Route("GET", "/proa/v1/manifests/{name:path}", list_inspect),
    Route("DELETE", "/proa/v1/manifests/{name:path}", list_delete),
    Route("GET", "/proa/v1/artifacts", artifacts),
    Route("POST", "/proa/v1/artifacts/{name:path}/add", artifact_add),
    Route("POST", "/proa/v1/artifacts/{name:path}/pull", artifact_pull),
    Route("POST", "/proa/v1/artifacts/{name:path}/push", artifact_push),
    Route("GET", "/proa/v1/artifacts/{name:path}/file", artifact_file),
    Route("GET", "/proa/v1/artifacts/{name:path}", artifact),
    Route("DELETE", "/proa/v1/artifacts/{name:path}", artifact_delete),
)
