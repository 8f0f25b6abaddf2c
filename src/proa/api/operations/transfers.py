"""Images on the move: pull and import, push, load, save, and logging in at a registry."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, BinaryIO

from proa.api.messages import NO_CONTENT, TAR, Outcome, Reply, Request, Stream, json_body
from proa.api.operations.transfer_streams import Report, cancellable, download, upload_progress
from proa.api.routes import Route
from proa.api.service import Service
from proa.errors import Invalid, Unsupported

if TYPE_CHECKING:
    from proa.transfer import Credentials


async def create(service: Service, request: Request) -> Outcome:
    """`POST /images/create`: `fromImage` pulls, `fromSrc` imports."""
    query = request.query
    if query.text("fromImage"):
        return await _pull(service, request)
    if query.text("fromSrc"):
        return await _import(service, request)
    raise Invalid("neither fromImage nor fromSrc was given", code="source-missing")


def _credentials(request: Request) -> Credentials | None:
    """What X-Registry-Auth says; nonsense counts as nothing, as with Docker: there are clients that send some."""
    from proa.transfer import credentials_from_header

    try:
        return credentials_from_header(request.headers.get("x-registry-auth", ""))
    except Invalid:
        return None


async def _pull(service: Service, request: Request) -> Stream:
    query = request.query
    reference = joined(query.text("fromImage"), query.text("tag"))
    platform, all_platforms = query.platform(), query.flag("allPlatforms")
    credentials = _credentials(request)

    def work(report: Report, stopped: threading.Event) -> object:
        transfers = service.engine.transfers
        pull = transfers.pull_all_tags if has_no_tag(reference) else transfers.pull
        return pull(
            reference,
            platform=platform,
            all_platforms=all_platforms,
            credentials=credentials,
            progress=report,
            stopped=stopped,
        )

    return await cancellable(service, request, work)


def joined(repository: str, tag: str) -> str:
    """A reference from a repository and a tag or digest, which takes the place of one that the repository carries."""
    if not tag:
        return repository
    bare = repository if has_no_tag(repository) or "@" in repository else repository.rpartition(":")[0]
    return f"{bare}@{tag}" if ":" in tag else f"{bare}:{tag}"


def has_no_tag(reference: str) -> bool:
    """True for a bare repository, by which Docker's clients mean all its tags: they say `latest` when they mean it."""
    return ":" not in reference.rpartition("/")[2]


async def _import(service: Service, request: Request) -> Stream:
    query = request.query
    source_date_epoch = query.epoch()
    if query.text("fromSrc") != "-":
        raise Unsupported(
            "importing from a URL is not supported", code="import-from-url", hint="fetch it and import from stdin"
        )

    def work(body: BinaryIO, report: Report) -> str:
        return service.engine.transfers.import_image(
            body,
            repository=query.text("repo"),
            tag=query.text("tag"),
            message=query.text("message"),
            changes=query.texts("changes"),
            platform=query.platform(),
            source_date_epoch=source_date_epoch,
            progress=report,
        )

    return await upload_progress(service, request, work)


def _compression(request: Request) -> str:
    """`compression`, an addition to Docker's parameters: FORMAT[:LEVEL]. Raises Invalid."""
    from proa.storage.layers.encoders import parse_compression

    text = request.query.text("compression")
    if text:
        parse_compression(text)
    return text


async def push(service: Service, request: Request) -> Outcome:
    """`POST /images/{name}/push`."""
    reference = joined(request["name"], request.query.text("tag"))
    platform = request.query.platform()
    credentials = _credentials(request)
    compression = _compression(request)

    def work(report: Report, stopped: threading.Event) -> object:
        transfers = service.engine.transfers
        push = transfers.push_all_tags if has_no_tag(reference) else transfers.push
        return push(
            reference,
            platform=platform,
            credentials=credentials,
            compression=compression,
            progress=report,
            stopped=stopped,
        )

    return await cancellable(service, request, work)


async def load(service: Service, request: Request) -> Outcome:
    """`POST /images/load`: a docker-archive or an OCI archive."""
    platform = request.query.platform()

    def work(body: BinaryIO, report: Report) -> list[str]:
        return service.engine.transfers.load(body, platform=platform, progress=report)

    return await upload_progress(service, request, work)


async def save(service: Service, request: Request) -> Outcome:
    """`GET /images/{name}/get` and `GET /images/get?names=…`: one archive of the named images."""
    names = [request["name"]] if "name" in request.variables else request.query.texts("names")
    names = [name for text in names for name in text.split(",") if name]
    if not names:
        raise Invalid("no image was named", code="names-missing")
    platform = request.query.platform()
    for name in names:
        await service.pools.quick(service.engine.images.get, name, platform)
    transfers = service.engine.transfers
    compression = _compression(request) or "none"
    return await download(
        service, lambda out: transfers.save(names, out, platform=platform, compression=compression), content_type=TAR
    )


async def login(service: Service, request: Request) -> Outcome:
    """`POST /auth`: try credentials at the registry they are for; nothing is kept."""
    from proa.transfer import credentials_from_mapping

    credentials = credentials_from_mapping(await json_body(request))
    token = await service.pools.slow(service.engine.transfers.login, credentials)
    return Reply(value={"Status": "Login Succeeded", "IdentityToken": token})


async def rootfs(service: Service, request: Request) -> Outcome:
    """`GET /proa/v1/images/{name}/rootfs`: an image's files as one tar."""
    name, platform = request["name"], request.query.platform()
    await service.pools.quick(service.engine.images.get, name, platform)

    def work(out: BinaryIO) -> None:
        service.engine.transfers.rootfs(name, out, platform=platform)

    return await download(service, work, content_type=TAR)


async def unpack_rootfs(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/images/{name}/rootfs?directory=`: the same into an empty directory of the engine's machine."""
    query = request.query
    await service.pools.slow(
        service.engine.transfers.unpack_rootfs, request["name"], query.text("directory"), platform=query.platform()
    )
    return NO_CONTENT


ROUTES = (
    Route("GET", "/proa/v1/images/{name:path}/rootfs", rootfs),
    Route("POST", "/proa/v1/images/{name:path}/rootfs", unpack_rootfs),
    Route("POST", "/auth", login),
    Route("POST", "/images/create", create),
    Route("POST", "/images/load", load),
    Route("GET", "/images/get", save),
    Route("GET", "/images/{name:path}/get", save),
    Route("POST", "/images/{name:path}/push", push),
)
