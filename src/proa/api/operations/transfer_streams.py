"""Long answers: bytes a thread produces, and Docker's progress lines."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import msgspec

from proa.api.messages import JSON, Request, Stream
from proa.api.pipes import Inflow, Outflow
from proa.api.service import Service
from proa.api.status import last_line, logged_failure
from proa.errors import Cancelled

if TYPE_CHECKING:
    from proa.transfer import ProgressEvent

log = logging.getLogger("proa.api")

Report = Callable[["ProgressEvent"], None]


async def download(service: Service, produce: Callable[[BinaryIO], object], *, content_type: str) -> Stream:
    """Stream what `produce` writes in a thread. A failure before the first byte is raised here, as a clean error."""
    out = Outflow()

    def work() -> None:
        try:
            produce(cast("BinaryIO", out))
        except Exception as error:  # noqa: BLE001 carried to the loop, which answers or tears the reply
            out.end(error)
        else:
            out.end()

    return await _begin(service, out, work, content_type)


class Lines:
    """Docker's progress: one JSON object per line; phases that change many times a second may be skipped."""

    def __init__(self, out: Outflow, *, quiet: bool = False) -> None:
        self._out = out
        self._quiet = quiet
        self.wrote = False

    def report(self, event: ProgressEvent) -> None:
        """A transfer's progress. Raises Cancelled, in the transfer, when the client has gone."""
        if self._quiet and not event.aux:
            return
        line = _line(event.to_wire())
        if event.current and event.current < event.total:
            self._out.offer(line)
            self.wrote = True
        else:
            self._write(line)

    def say(self, **members: object) -> None:
        """A line of its own."""
        self._write(_line(members))

    def _write(self, line: bytes) -> None:
        self._out.write(line)
        self.wrote = True


def _line(members: dict[str, Any]) -> bytes:
    return msgspec.json.encode(members) + b"\r\n"


async def progress(
    service: Service,
    work: Callable[[Report], object],
    *,
    quiet: bool = False,
) -> Stream:
    """Run a transfer in a thread and stream its progress.

    A failure before the first line is raised here and becomes a status; a later one becomes a last line.
    """
    out = Outflow()
    lines = Lines(out, quiet=quiet)

    def run() -> None:
        try:
            work(lines.report)
        except Cancelled:
            out.end()
        except Exception as error:  # noqa: BLE001 - carried to the client
            if not lines.wrote:
                out.end(error)
                return
            try:
                lines.say(**last_line(logged_failure(error, "transfer failed")))
            except Cancelled:
                pass
            out.end()
        else:
            out.end()

    return await _begin(service, out, run, JSON)


async def cancellable(service: Service, request: Request, work: Callable[[Report, threading.Event], object]) -> Stream:
    """`progress` of a transfer that ends when its client leaves, also while nothing moves: the event says so to it."""
    stopped = threading.Event()
    watch = asyncio.ensure_future(_when_gone(request.gone, stopped))
    try:
        stream = await progress(service, lambda report: work(report, stopped))
    except BaseException:
        watch.cancel()
        raise
    abandon = stream.finish

    async def finish() -> None:
        watch.cancel()
        stopped.set()  # at the end of a transfer that was told to its end, nobody looks any more
        if abandon is not None:
            await abandon()

    return msgspec.structs.replace(stream, finish=finish)


async def _when_gone(gone: asyncio.Event, stopped: threading.Event) -> None:
    await gone.wait()
    stopped.set()


async def _begin(service: Service, out: Outflow, work: Callable[[], None], content_type: str) -> Stream:
    future = service.pools.start_slow(work)
    future.add_done_callback(_heard)
    try:
        await out.started()
    except BaseException:
        out.abandon()
        raise

    async def abandon() -> None:
        out.abandon()

    return Stream(chunks=out.chunks(), content_type=content_type, finish=abandon)


def _heard(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.error("a transfer's thread failed: %s", error, exc_info=error)


class Upload:
    """A request's body as a file for a thread, until `finish`."""

    def __init__(self, request: Request) -> None:
        self._flow = Inflow(request.body.chunks())

    @property
    def file(self) -> BinaryIO:
        """What the thread reads."""
        return cast("BinaryIO", self._flow)

    async def finish(self) -> None:
        """The thread is done with it: read no more of the body."""
        await self._flow.finish()


async def upload_progress(
    service: Service,
    request: Request,
    work: Callable[[BinaryIO, Report], object],
) -> Stream:
    """`progress` of a transfer that reads the request's body."""
    upload = Upload(request)
    try:
        stream = await progress(service, lambda report: work(upload.file, report))
    except BaseException:
        await upload.finish()
        raise
    abandon = stream.finish

    async def finish() -> None:
        if abandon is not None:
            await abandon()
        await upload.finish()

    return msgspec.structs.replace(stream, finish=finish)
