"""Containers' lives: start, stop, kill, pause, wait, and what they use while they run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Any, cast

import msgspec

from proa.api.messages import NO_CONTENT, Outcome, Reply, Request, Stream, json_body, typed
from proa.api.routes import Route
from proa.api.service import Service
from proa.api.translate.stats import stats as stats_object
from proa.engine.types import Container, ExitStatus, UpdateRequest
from proa.engine.waits import Condition
from proa.errors import Conflict, Invalid, NotFound

_CONDITIONS = ("not-running", "next-exit", "removed", "healthy", "unhealthy")
SAMPLE_SECONDS = 1.0


async def start(service: Service, request: Request) -> Outcome:
    """`POST /containers/{id}/start`."""
    await service.pools.change(service.engine.lifecycle.start, request["id"])
    return NO_CONTENT


async def stop(service: Service, request: Request) -> Outcome:
    """`POST /containers/{id}/stop`: `t` seconds until it is killed, -1 for never."""
    query = request.query
    await service.pools.change(
        service.engine.lifecycle.stop, request["id"], timeout=query.number("t"), signal=query.text("signal")
    )
    return NO_CONTENT


async def restart(service: Service, request: Request) -> Outcome:
    """`POST /containers/{id}/restart`."""
    query = request.query
    await service.pools.change(
        service.engine.lifecycle.restart, request["id"], timeout=query.number("t"), signal=query.text("signal")
    )
    return NO_CONTENT


async def kill(service: Service, request: Request) -> Outcome:
    """`POST /containers/{id}/kill`."""
    await service.pools.change(service.engine.lifecycle.kill, request["id"], request.query.text("signal") or "KILL")
    return NO_CONTENT


async def pause(service: Service, request: Request) -> Outcome:
    """`POST /containers/{id}/pause`."""
    await service.pools.change(service.engine.lifecycle.pause, request["id"])
    return NO_CONTENT


async def unpause(service: Service, request: Request) -> Outcome:
    """`POST /containers/{id}/unpause`."""
    await service.pools.change(service.engine.lifecycle.unpause, request["id"])
    return NO_CONTENT


async def update(service: Service, request: Request) -> Outcome:
    """`POST /containers/{id}/update`."""
    wanted = typed(await json_body(request), UpdateRequest, "update config")
    warnings = await service.pools.change(service.engine.updates.update, request["id"], wanted)
    return Reply(value={"Warnings": warnings or None})


async def wait(service: Service, request: Request) -> Outcome:
    """`POST /containers/{id}/wait`: the head at once, since clients start the container only after it.

    The conditions `healthy` and `unhealthy` are ours.
    """
    condition = request.query.text("condition") or "not-running"
    future = _wait(service, request["id"], condition)

    async def end() -> AsyncIterator[bytes]:
        yield _status(await asyncio.wrap_future(future))

    return _until(future, end())


def _wait(service: Service, name_or_id: str, condition: str) -> Future[ExitStatus]:
    """Note the wait at once: that is a look into memory, shorter than the way to a thread."""
    if condition not in _CONDITIONS:
        raise Invalid(f"invalid condition: {condition[:60]!r}", code="condition-invalid")
    return service.engine.lifecycle.wait(name_or_id, cast("Condition", condition))


def _status(status: ExitStatus) -> bytes:
    result: dict[str, Any] = {"StatusCode": status.status_code}
    if status.error:
        result["Error"] = {"Message": status.error}
    return msgspec.json.encode(result) + b"\n"


def _until(future: Future[ExitStatus], chunks: AsyncIterator[bytes]) -> Stream:
    async def give_up() -> None:
        future.cancel()

    return Stream(chunks=chunks, endless=True, whole=True, finish=give_up)


async def top(service: Service, request: Request) -> Outcome:
    """`GET /containers/{id}/top`."""
    arguments = request.query.text("ps_args", "-ef")
    titles, rows = await service.pools.change(service.engine.lifecycle.top, request["id"], arguments)
    return Reply(value={"Titles": titles, "Processes": rows})


async def stats(service: Service, request: Request) -> Outcome:
    """`GET /containers/{id}/stats`: one object a second, or just one."""
    query = request.query
    container = await service.pools.quick(service.engine.containers.get, request["id"])
    if query.flag("stream", True):
        return Stream(chunks=_samples(service, container), endless=True)
    first = await _sample(service, container)
    if not first or query.flag("one-shot"):
        return Reply(value=stats_object(container.id, container.name, first, None))
    await asyncio.sleep(SAMPLE_SECONDS)
    return Reply(value=stats_object(container.id, container.name, await _sample(service, container), first))


async def _samples(service: Service, container: Container) -> AsyncIterator[bytes]:
    before: dict[str, Any] = {}
    clock = asyncio.get_running_loop().time
    due = clock()
    while True:
        sample = await _sample(service, container)
        if before and not sample:
            return
        yield msgspec.json.encode(stats_object(container.id, container.name, sample, before)) + b"\n"
        before = sample
        due = max(due + SAMPLE_SECONDS, clock())
        await asyncio.sleep(due - clock())


async def _sample(service: Service, container: Container) -> dict[str, Any]:
    """A raw sample, empty when the container does not run."""
    try:
        return await service.pools.quick(service.engine.lifecycle.stats, container.id)
    except (Conflict, NotFound):
        return {}


ROUTES = (
    Route("POST", "/containers/{id}/start", start),
    Route("POST", "/containers/{id}/stop", stop),
    Route("POST", "/containers/{id}/restart", restart),
    Route("POST", "/containers/{id}/kill", kill),
    Route("POST", "/containers/{id}/pause", pause),
    Route("POST", "/containers/{id}/unpause", unpause),
    Route("POST", "/containers/{id}/update", update),
    Route("POST", "/containers/{id}/wait", wait),
    Route("GET", "/containers/{id}/top", top),
    Route("GET", "/containers/{id}/stats", stats),
)
