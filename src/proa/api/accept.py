"""Accept clients, and turn away those there is no room for.

asyncio's own accept loop answers a lack of descriptors by trying, and logging, as often as the backlog is long, and
clients then hang. Here a client past the limit is told so in one send and closed, and when descriptors run out all the
same, accepting rests for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING

from proa.api.messages import JSON
from proa.api.sockets.doors import Door
from proa.api.status import error_reply
from proa.errors import Unavailable

if TYPE_CHECKING:
    from proa.api.server import HttpServer

log = logging.getLogger("proa.api")

#: Accepted in one turn of the loop, so that a flood does not keep it from serving.
BATCH = 64
REST_SECONDS = 0.5


class Acceptor:
    """Accepts on one listening socket, which is a door of one server."""

    def __init__(self, server: HttpServer, listener: socket.socket, door: Door | None = None) -> None:
        self._server = server
        self._listener = listener
        self._door = door or Door()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[object]] = set()
        self._resting: asyncio.TimerHandle | None = None
        listener.setblocking(False)

    def start(self) -> None:
        """Accept from now on."""
        self._resting = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    async def close(self) -> None:
        """Accept who waits in the queue already, then no more; the listening socket is closed."""
        self._rest()
        while self._accept() == BATCH:
            pass
        self._rest()
        self._listener.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _rest(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _accept(self) -> int:
        for count in range(BATCH):
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return count
            except OSError as error:  # out of descriptors or memory: the queue waits, nothing is lost
                log.error("cannot accept a client: %s", error)
                self._rest()
                self._resting = self._loop.call_later(REST_SECONDS, self.start)
                return count
            if self._server.connected >= self._server.max_connections or self._door.full:
                _turn_away(client)
            else:
                self._server.joining += 1
                self._door.connected += 1
                client.setblocking(False)
                task = self._loop.create_task(self._take(client))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return BATCH

    async def _take(self, client: socket.socket) -> object:
        try:
            return await self._loop.connect_accepted_socket(lambda: self._server.connection(self._door), client)
        except OSError as error:
            self._server.joining -= 1
            self._door.connected -= 1
            client.close()
            log.error("cannot serve a client: %s", error)
            return None


def _turn_away(client: socket.socket) -> None:
    reply = error_reply(Unavailable("the engine has too many connections", code="engine-busy"))
    body, _ = reply.payload()
    head = f"HTTP/1.1 {reply.status} Service Unavailable\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n"
    with client, contextlib.suppress(OSError):
        client.send(head.encode() + b"Connection: close\r\n\r\n" + body, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
