"""The engine itself: ping, version, info, usage, events, and what is not there yet."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator

import msgspec

from proa.api.messages import TEXT, Outcome, Reply, Request, Stream
from proa.api.routes import Route
from proa.api.service import Service
from proa.api.translate import system as translate
from proa.api.translate.events import EventFilter
from proa.api.translate.events import event as translate_event
from proa.engine.types import Event
from proa.errors import Exhausted, Unsupported

#: Events a client may lag behind before it is cut off: it would otherwise grow the engine without bound.
MAX_LAG = 8192

_PING = Reply(
    value=b"OK",
    content_type=TEXT,
    headers={"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Swarm": "inactive"},
)


async def ping(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`GET` and `HEAD /_ping`: how clients learn the API version."""
    return _PING


async def version(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`GET /version`."""
    return Reply(value=translate.version())


async def info(service: Service, request: Request) -> Outcome:
    """`GET /info`."""
    facts = await service.pools.quick(service.engine.system.info)
    return Reply(value=translate.info(facts, request.version))


async def usage(service: Service, request: Request) -> Outcome:
    """`GET /system/df`."""
    engine = service.engine
    wanted = frozenset(request.query.texts("type"))

    def work() -> dict[str, object]:
        return translate.usage(engine, wanted, request.version, time.time())

    return Reply(value=await service.pools.slow(work))


async def events(service: Service, request: Request) -> Outcome:
    """`GET /events`: those remembered since `since`, then those to come, until `until`."""
    query = request.query
    passes = EventFilter(query.filters())
    since, until = query.nanoseconds("since"), query.nanoseconds("until")
    return Stream(chunks=_events(service, passes, since, until), endless=True)


async def _events(service: Service, passes: EventFilter, since: int, until: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    queue: deque[Event] = deque()
    more = asyncio.Event()

    def arrived(event: Event) -> None:
        queue.append(event)
        more.set()
        if len(queue) > MAX_LAG:
            unsubscribe()

    def sink(event: Event) -> None:
        if passes(event):
            loop.call_soon_threadsafe(arrived, event)

    deadline = loop.time() + (until - time.time_ns()) / 1e9 if until else None
    unsubscribe = service.engine.events.subscribe(sink)  # before looking back, so that nothing falls between
    try:
        history = service.engine.events.history
        past = await service.pools.quick(history, since, until or None) if since or until else []
        seen = past[-1].time_nano if past else 0
        for event in past:
            if passes(event):
                yield _line(event)
        while True:
            while queue:
                if len(queue) > MAX_LAG:
                    raise Exhausted(f"the client lags {len(queue)} events behind", code="events-lag")
                event = queue.popleft()
                if event.time_nano > seen:
                    yield _line(event)
            more.clear()
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    await more.wait()
            except TimeoutError:
                return
    finally:
        unsubscribe()


def _line(event: Event) -> bytes:
    return msgspec.json.encode(translate_event(event)) + b"\n"


async def build(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`POST /build`."""
    raise Unsupported(
        "building images is not supported by this engine yet",
        code="build-unsupported",
        hint="build elsewhere and `load`, `pull` or `import` the result; `commit` makes an image of a container",
    )


async def build_prune(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`POST /build/prune`: there is no build cache, which `docker system prune` asks to be emptied."""
    return Reply(value={"CachesDeleted": None, "SpaceReclaimed": 0})


ROUTES = (
    Route("POST", "/build/prune", build_prune),
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/version", version),
    Route("GET", "/info", info),
    Route("GET", "/system/df", usage),
    Route("GET", "/events", events),
    Route("POST", "/build", build),
)
