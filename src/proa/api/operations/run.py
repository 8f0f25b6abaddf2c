"""Runs: a container created, attached to, started and waited for in one request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

import msgspec

from proa.api.messages import MULTIPLEXED_STREAM, Hijack, Outcome, Request, frame, json_body
from proa.api.operations.containers import container_wanted, make_container
from proa.api.routes import Route
from proa.api.service import Service
from proa.api.status import last_line, logged_failure
from proa.errors import Invalid

if TYPE_CHECKING:
    from concurrent.futures import Future

    from proa.engine.types import ExitStatus

#: How long a client may take no byte of what it is told last.
TELL_SECONDS = 60.0
_FAILURE = 3
_EXIT = 4


async def run(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/containers/run`: create, attach, start and wait in one; the stream's last frame tells the end.

    Four requests are 1.2 ms of a run that takes 12. Number 4 is the exit status in decimal digits, once the container
    is removed if it is to be, number 3 a failure to start, as a JSON object.
    """
    engine = service.engine
    wanted = container_wanted(request, await json_body(request), request.query.text("name"), request.query.platform())
    if wanted.config.tty:
        raise Invalid(
            "a terminal's stream has no frames: create the container, attach to it and start it", code="run-terminal"
        )
    result = await make_container(service, wanted)
    id, stdin = result.id, wanted.config.open_stdin  # noqa: A001
    warnings = {"Warnings": msgspec.json.encode(result.warnings).decode()} if result.warnings else {}

    async def take(connection: int, early: bytes) -> None:
        told = socket.socket(fileno=os.dup(connection))
        told.setblocking(False)
        try:
            engine.streams.park(id, connection, stdin=stdin, stdout=True, stderr=True, early=early, followed=True)
        except BaseException:
            os.close(connection)
            told.close()
            raise
        engine.containers.attached(id)
        ended = engine.lifecycle.wait(id, "removed" if wanted.host.auto_remove else "next-exit")
        # Whoever carries the output has then written all of it.
        over = engine.lifecycle.wait(id, "over")
        try:
            await service.pools.change(engine.lifecycle.start, id)
        except Exception as error:  # noqa: BLE001 - carried to the client
            ended.cancel()
            over.cancel()
            line = last_line(logged_failure(error, "start failed"))
            await _tell(told, frame(_FAILURE, msgspec.json.encode(line)))
            return
        _End(told, ended, over)

    return Hijack(
        take=take, framed=True, content_type=MULTIPLEXED_STREAM, headers={"Container-Id": id, **warnings}, at_once=True
    )


class _End:
    """Tells the client of the end from the thread that learns of it: by way of the loop it is 0.2 ms later."""

    def __init__(self, told: socket.socket, ended: Future[ExitStatus], over: Future[ExitStatus]) -> None:
        self._told = told
        self._ended = ended
        self._left = [ended, over]
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        for future in (ended, over):
            future.add_done_callback(self._done)

    def _done(self, future: Future[ExitStatus]) -> None:
        with self._lock:
            self._left.remove(future)
            if self._left:
                return
        if self._ended.cancelled():
            self._told.close()
            return
        data = frame(_EXIT, b"%d" % self._ended.result().status_code)
        try:
            sent = self._told.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:  # the client left
            sent = len(data)
        if sent == len(data):
            _close(self._told)
        else:
            asyncio.run_coroutine_threadsafe(_tell(self._told, data[sent:]), self._loop)


async def _tell(told: socket.socket, data: bytes) -> None:
    """The stream's last frame, and its end."""
    with contextlib.suppress(OSError, TimeoutError):
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(told, data), TELL_SECONDS)
    _close(told)


def _close(told: socket.socket) -> None:
    """End the stream, whoever else has the socket still."""
    with told, contextlib.suppress(OSError):
        told.shutdown(socket.SHUT_WR)


ROUTES = (Route("POST", "/proa/v1/containers/run", run),)
