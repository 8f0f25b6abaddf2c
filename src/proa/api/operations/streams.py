"""Containers' streams: attach, resize and logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote_plus

from proa.api.messages import Hijack, Outcome, Reply, Request, Stream, WebSocket, frame, stream_type
from proa.api.routes import Route
from proa.api.service import Service
from proa.engine.logs import LogReader
from proa.engine.types import Event, LogEntry, LogRequest
from proa.errors import Conflict, Invalid

# Output leaves in pieces of about this size: one write per log line would cost a system call each.
PIECE = 64 << 10


async def attach(service: Service, request: Request) -> Hijack:
    """`POST /containers/{id}/attach`: the connection goes to the container's monitor, now or when it starts."""
    query = request.query
    container = service.engine.containers.get(request["id"])  # from memory: shorter than the way to a thread
    if container.state.status == "paused":
        raise Conflict(
            f"container {container.id} is paused, unpause the container before attach", code="container-paused"
        )

    stdin, stdout, stderr = (query.flag(name) for name in ("stdin", "stdout", "stderr"))
    logs, stream, keys = query.flag("logs"), query.flag("stream"), query.text("detachKeys")
    streams = service.engine.streams

    async def take(connection: int, early: bytes) -> None:
        if stream:
            service.engine.containers.attached(container.id)
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
            early=early,
        )

    def park(connection: int, early: bytes) -> bool:
        if logs or not stream:
            return False
        parked = streams.park(
            container.id, connection, stdin=stdin, stdout=stdout, stderr=stderr, detach_keys=keys, early=early
        )
        if parked:
            service.engine.containers.attached(container.id)
        return parked

    tty = container.config.tty
    return Hijack(take=take, park=park, framed=not tty, content_type=stream_type(request.version, tty=tty))


async def attach_by_web_socket(service: Service, request: Request) -> Outcome:
    """`GET /containers/{id}/attach/ws`: stdout and stderr in binary messages, stdin from messages."""
    if request.headers.get("upgrade", "").lower() != "websocket":
        raise Invalid("this is for web sockets: send Upgrade: websocket", code="websocket-missing")
    return WebSocket(hijack=await attach(service, request))


async def resize(service: Service, request: Request) -> Outcome:
    """`POST /containers/{id}/resize`."""
    height, width = terminal_size(request)
    await service.pools.change(service.engine.streams.resize, request["id"], height, width)
    return Reply(status=200)


def terminal_size(request: Request) -> tuple[int, int]:
    """`h` and `w` in characters. Raises Invalid."""
    height, width = request.query.number("h", 0), request.query.number("w", 0)
    assert height is not None
    assert width is not None
    if not (0 <= height <= 65535 and 0 <= width <= 65535):
        raise Invalid(f"invalid terminal size {width}x{height}", code="size-invalid")
    return height, width


async def logs(service: Service, request: Request) -> Outcome:
    """`GET /containers/{id}/logs`."""
    query = request.query
    wanted = LogRequest(
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        follow=query.flag("follow"),
        tail=_tail(query.text("tail")),
        since_ns=query.nanoseconds("since"),
        until_ns=query.nanoseconds("until"),
        timestamps=query.flag("timestamps"),
        details=query.flag("details"),
    )
    if not (wanted.stdout or wanted.stderr):
        raise Invalid("Bad parameters: you must choose at least one stream", code="streams-none")
    container = await service.pools.quick(service.engine.containers.get, request["id"])
    reader = await service.pools.quick(service.engine.streams.logs, container.id, wanted)
    tty = container.config.tty

    async def close() -> None:
        reader.close()

    return Stream(
        chunks=_entries(service, container.id, reader, wanted, framed=not tty),
        content_type=stream_type(request.version, tty=tty),
        endless=wanted.follow,
        finish=close,
    )


def _tail(text: str) -> int:
    """`all`, nothing and what is no number mean everything, as in Docker."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1


async def _entries(
    service: Service, container: str, reader: LogReader, wanted: LogRequest, *, framed: bool
) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    more = asyncio.Event()

    def happened(event: Event) -> None:  # the container's end may write nothing to the log
        if event.id == container:
            loop.call_soon_threadsafe(more.set)

    descriptor = reader.fileno()
    unsubscribe = None
    try:
        if descriptor >= 0:
            loop.add_reader(descriptor, more.set)
            unsubscribe = service.engine.events.subscribe(happened)
        while True:
            more.clear()
            entries = await service.pools.to_the_end(reader.read)
            piece = bytearray()
            for entry in entries:
                data = details(entry) + entry.data if wanted.details else entry.data
                if wanted.timestamps:
                    data = entry.time.encode() + b" " + data
                piece += frame(entry.stream, data) if framed else data
                if len(piece) >= PIECE:
                    yield bytes(piece)
                    piece.clear()
            if piece:
                yield bytes(piece)
            if reader.finished:
                return
            if not entries:
                await more.wait()
    finally:
        if unsubscribe is not None:
            unsubscribe()
        if descriptor >= 0:
            loop.remove_reader(descriptor)


def details(entry: LogEntry) -> bytes:
    """The labels and variables of a record as Docker writes them before the line."""
    pairs = (f"{quote_plus(k)}={quote_plus(v)}" for k, v in sorted(entry.attributes.items()))
    return ",".join(pairs).encode() + b" "


ROUTES = (
    Route("POST", "/containers/{id}/attach", attach),
    Route("GET", "/containers/{id}/attach/ws", attach_by_web_socket),
    Route("POST", "/containers/{id}/resize", resize),
    Route("GET", "/containers/{id}/logs", logs),
)
