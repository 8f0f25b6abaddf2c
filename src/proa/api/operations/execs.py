"""Execs: create, start, resize, inspect."""

from __future__ import annotations

import asyncio
from typing import Any

from proa.api.messages import (
    MULTIPLEXED_STREAM,
    NO_CONTENT,
    Hijack,
    Outcome,
    Reply,
    Request,
    created,
    json_body,
    stream_type,
    typed,
)
from proa.api.operations.streams import terminal_size
from proa.api.pools import BUSY
from proa.api.routes import Route
from proa.api.service import Service
from proa.engine.exec_starts import Starting
from proa.engine.types import Exec, ExecRequest
from proa.errors import Conflict, Invalid, NotFound, Unavailable

RESIZE_ATTEMPTS = 20
RESIZE_SECONDS = 0.05
# Most execs are over at the first look, and whoever waits for one has been told: to be woken before would only delay
# that. After the last a thread waits, with the time limit of every start.
LOOKS_S = (0.005, 0.01, 0.05, 0.2, 0.5)
AGAIN_S = 0.1


async def create(service: Service, request: Request) -> Outcome:
    """`POST /containers/{id}/exec`."""
    wanted = _wanted(await json_body(request))
    return created({"Id": await service.pools.quick(service.engine.execs.create, request["id"], wanted)})


def _wanted(body: dict[str, Any]) -> ExecRequest:
    if isinstance(body.get("Cmd"), str):
        body["Cmd"] = [body["Cmd"]]
    return typed(body, ExecRequest, "exec config")


async def run(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/containers/{id}/exec`: create and start in one; the exit status is the stream's last frame.

    Three requests are 2 ms of an exec that takes 15. A stream that ends without the frame has lost its monitor.
    """
    wanted = _wanted(await json_body(request))
    if wanted.tty:
        raise Invalid("a terminal's stream has no frames: create the exec and start it", code="exec-terminal")
    execs = service.engine.execs
    id = execs.prepare(request["id"], wanted)  # noqa: A001 - a thread for this would be a tenth of the engine's part

    async def take(connection: int, early: bytes) -> None:
        starting = execs.start_at_once(id, connection, early)
        if starting is not None:
            await asyncio.shield(asyncio.ensure_future(_finish(service, starting)))  # whether the client stays or not
            return
        await service.pools.change(
            execs.start, id, connection, detach=False, tty=False, early=early, tells_end=True, prepared=True
        )

    return Hijack(take=take, framed=True, content_type=MULTIPLEXED_STREAM, headers={"Exec-Id": id}, at_once=True)


async def _finish(service: Service, starting: Starting) -> None:
    """See what became of a start, without haste: the client has output and status from elsewhere."""
    execs = service.engine.execs
    for pause in LOOKS_S:
        if starting.launcher is None:
            break
        await asyncio.sleep(pause)
        if execs.finish(starting, wait=False):
            return
    while True:
        try:
            await service.pools.change(execs.finish, starting)
        except Unavailable as error:
            if error.code != BUSY:
                raise
            await asyncio.sleep(AGAIN_S)
        else:
            return


async def start(service: Service, request: Request) -> Outcome:
    """`POST /exec/{id}/start`: detached, or with the connection given to the container's monitor."""
    body = await json_body(request, optional=True)
    execs = service.engine.execs
    exec_ = await service.pools.quick(execs.get, request["id"])
    if exec_.running or exec_.exit_code is not None:
        verb = "is already running" if exec_.running else "has already run"
        raise Conflict(f"Error: Exec command {exec_.id} {verb}", code="exec-started")
    tty = bool(body.get("Tty", exec_.request.tty))
    size = _console_size(body.get("ConsoleSize"))
    if body.get("Detach"):
        await service.pools.change(execs.start, exec_.id, None, detach=True, tty=tty, console_size=size)
        return Reply(status=200)

    async def take(connection: int, early: bytes) -> None:
        await service.pools.change(
            execs.start, exec_.id, connection, detach=False, tty=tty, early=early, console_size=size
        )

    return Hijack(take=take, framed=not tty, content_type=stream_type(request.version, tty=tty))


def _console_size(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == 2 and all(type(n) is int and 0 <= n <= 65535 for n in value)):
        raise Invalid("invalid ConsoleSize: not two numbers, height and width", code="size-invalid")
    return (value[0], value[1]) if value != [0, 0] else None


async def resize(service: Service, request: Request) -> Outcome:
    """`POST /exec/{id}/resize`."""
    height, width = terminal_size(request)
    execs = service.engine.execs
    for _ in range(RESIZE_ATTEMPTS):
        exec_ = await service.pools.quick(execs.get, request["id"])
        try:
            await service.pools.change(execs.resize, exec_.id, height, width)
        except (Conflict, NotFound):
            # Clients send the size beside the start: wait for the process rather than lose it.
            if exec_.exit_code is not None:
                raise
            await asyncio.sleep(RESIZE_SECONDS)
        else:
            return Reply(status=200)
    raise Conflict(f"exec {exec_.id} is not running", code="not-running")


async def inspect(service: Service, request: Request) -> Outcome:
    """`GET /exec/{id}/json`: final before the exec's stream is closed, as clients ask right after."""
    return Reply(value=_shape(await service.pools.change(service.engine.execs.get, request["id"])))


def _shape(found: Exec) -> dict[str, object]:
    asked = found.request
    command = asked.cmd or [""]
    process: dict[str, object] = {
        "tty": asked.tty,
        "entrypoint": command[0],
        "arguments": command[1:],
        "privileged": asked.privileged,
    }
    if asked.user:
        process["user"] = asked.user
    return {
        "ID": found.id,
        "Running": found.running,
        "ExitCode": found.exit_code,
        "ProcessConfig": process,
        "OpenStdin": asked.attach_stdin,
        "OpenStderr": asked.attach_stderr,
        "OpenStdout": asked.attach_stdout,
        "CanRemove": not found.running and found.exit_code is not None,
        "ContainerID": found.container,
        "DetachKeys": asked.detach_keys,
        "Pid": found.pid,
    }


async def list_(service: Service, request: Request) -> Outcome:
    """`GET /proa/v1/containers/{id}/execs`: what runs in a container besides its first process, and what ran."""
    found = await service.pools.change(service.engine.execs.list, request["id"])
    return Reply(value=[_shape(exec_) for exec_ in found])


async def kill(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/exec/{id}/kill?signal=`: send a signal to what an exec runs."""
    signal = request.query.text("signal") or "KILL"
    await service.pools.change(service.engine.execs.kill, request["id"], signal)
    return NO_CONTENT


ROUTES = (
    Route("POST", "/containers/{id}/exec", create),
    Route("POST", "/exec/{id}/start", start),
    Route("POST", "/exec/{id}/resize", resize),
    Route("GET", "/exec/{id}/json", inspect),
    Route("POST", "/proa/v1/containers/{id}/exec", run),
    Route("GET", "/proa/v1/containers/{id}/execs", list_),
    Route("POST", "/proa/v1/exec/{id}/kill", kill),
)
