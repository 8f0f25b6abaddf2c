"""Attaching by web socket, as browsers and some SDKs do."""

from __future__ import annotations

from proa.api.messages import Outcome, Request, WebSocket
from proa.api.routes import Route
from proa.api.service import Service
from proa.errors import Conflict, Invalid


async def attach(service: Service, request: Request) -> Outcome:
    """`GET /containers/{id}/attach/ws`: stdout and stderr in binary messages, stdin from messages."""
    if request.headers.get("upgrade", "").lower() != "websocket":
        raise Invalid("this is for web sockets: send Upgrade: websocket", code="websocket-missing")
    query = request.query
    container = await service.pools.quick(service.engine.containers.get, request["id"])
    if container.state.status == "paused":
        raise Conflict(f"Container {container.id} is paused, unpause the container before attach", code="paused")
    stdin, stdout, stderr = (query.flag(name) for name in ("stdin", "stdout", "stderr"))
    logs, stream, keys = query.flag("logs"), query.flag("stream"), query.text("detachKeys")
    streams = service.engine.streams

    async def take(connection: int) -> None:
        if not logs and streams.park(
            container.id, connection, stdin=stdin, stdout=stdout, stderr=stderr, detach_keys=keys
        ):
            return
        await service.pools.change(
            streams.attach,
            container.id,
            connection,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            logs=logs,
            stream=stream,
            detach_keys=keys,
        )

    return WebSocket(take=take, framed=not container.config.tty)


ROUTES = (Route("GET", "/containers/{id}/attach/ws", attach),)
