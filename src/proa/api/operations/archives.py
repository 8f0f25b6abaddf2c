"""Containers' files as archives: `cp` both ways, and export."""

from __future__ import annotations

import base64
from typing import BinaryIO

import msgspec

from proa.api.messages import TAR, Outcome, Reply, Request
from proa.api.operations.transfer_streams import Upload, download
from proa.api.routes import Route
from proa.api.service import Service
from proa.api.translate.files import path_stat
from proa.engine.types import PathStat
from proa.errors import Invalid

STAT_HEADER = "X-Docker-Container-Path-Stat"


def _path(request: Request) -> str:
    path = request.query.text("path")
    if not path:
        raise Invalid("bad parameter: path cannot be empty", code="path-empty")
    return path


def _stat_header(found: PathStat) -> dict[str, str]:
    return {STAT_HEADER: base64.b64encode(msgspec.json.encode(path_stat(found))).decode()}


async def stat(service: Service, request: Request) -> Outcome:
    """`HEAD /containers/{id}/archive`: what is at a path, in a header."""
    found = await service.pools.change(service.engine.copies.stat, request["id"], _path(request))
    return Reply(headers=_stat_header(found))


async def read(service: Service, request: Request) -> Outcome:
    """`GET /containers/{id}/archive`: the file or tree at a path."""
    container, path = request["id"], _path(request)
    copies = service.engine.copies
    found = await service.pools.change(copies.stat, container, path)
    stream = await download(service, lambda out: copies.read(container, path, out), content_type=TAR)
    return msgspec.structs.replace(stream, headers=_stat_header(found), whole=True)


async def write(service: Service, request: Request) -> Outcome:
    """`PUT /containers/{id}/archive`: an archive's members into the directory at a path."""
    container, path = request["id"], _path(request)
    query = request.query
    keep_kinds, own = query.flag("noOverwriteDirNonDir"), query.flag("copyUIDGID")
    copies = service.engine.copies
    await service.pools.change(copies.stat, container, path)  # a wrong path is told before the body is read
    upload = Upload(request)

    def work(body: BinaryIO) -> None:
        copies.write(container, path, body, keep_kinds=keep_kinds, own=own)

    try:
        await service.pools.slow(work, upload.file)
    finally:
        await upload.finish()
    return Reply()


async def export(service: Service, request: Request) -> Outcome:
    """`GET /containers/{id}/export`: the container's file system."""
    container = (await service.pools.quick(service.engine.containers.get, request["id"])).id
    stream = await download(service, lambda out: service.engine.copies.export(container, out), content_type=TAR)
    return msgspec.structs.replace(stream, whole=True)


ROUTES = (
    Route("HEAD", "/containers/{id}/archive", stat),
    Route("GET", "/containers/{id}/archive", read),
    Route("PUT", "/containers/{id}/archive", write),
    Route("GET", "/containers/{id}/export", export),
)
