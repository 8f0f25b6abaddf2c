"""The resolver's process: one an engine, started with the first container that needs it, and outliving the engine.

    engine --one message at a time--> socket `resolver.sock` --> Service, Names
       serve  {"client": {...}} + UDP and TCP socket    answer a container; without sockets: change how
       drop   {"id"}                                    it has ended
       put    {"network", "title", "container", "names", "addresses"}
       forget {"network", "container"}
       clear                                            names only: a new engine tells them anew
       state                                            answered with {"clients": [ids]}
       end                                              when nobody is served

A message is one packet of JSON with its descriptors; the queries that wait meanwhile see all of it or nothing. Without
an engine it goes on with what it knows, and ends when neither clients nor an engine are left.
"""

from __future__ import annotations

import os
import socket
import sys
from functools import partial
from typing import Any, NoReturn

import msgspec

from proa.linux.companion import stand_alone
from proa.linux.events import IN, Loop
from proa.linux.sockets import receive_fds
from proa.resolver.names import Names
from proa.resolver.service import Client, Service

__all__ = ["MESSAGE_BYTES", "main"]

MESSAGE_BYTES = 64 << 10


class _Control:
    """The engine's side of things."""

    def __init__(self, loop: Loop, listener: socket.socket) -> None:
        self._loop = loop
        self._listener = listener
        self._names = Names()
        self._service = Service(loop, self._names)
        self._engines = 0
        self._ever = False
        loop.watch(listener.fileno(), IN, self._accept, first=True)
        loop.later(60.0, self._alone)

    def _alone(self) -> None:
        if not self._ever:
            self._loop.running = False

    def _accept(self, _: int) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return
        self._engines += 1
        self._ever = True
        self._loop.watch(connection.fileno(), IN, partial(self._message, connection), first=True)

    def _message(self, connection: socket.socket, _: int) -> None:
        try:
            data, fds = receive_fds(connection, MESSAGE_BYTES, 4)
        except OSError:
            data, fds = b"", []
        if not data:
            self._engines -= 1
            self._loop.forget(connection.fileno())
            connection.close()
            if not self._engines and not self._service.clients():
                self._loop.running = False
            return
        try:
            self._do(connection, msgspec.json.decode(data, type=dict[str, Any]), fds)
        except (msgspec.MsgspecError, KeyError, ValueError, OSError) as error:
            print(f"resolver: message of no sense: {error}", file=sys.stderr, flush=True)
        for fd in fds:
            os.close(fd)

    def _do(self, connection: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
        kind = message["op"]
        if kind == "serve":
            client = msgspec.convert(message["client"], Client)
            if len(fds) == 2:
                udp_fd, tcp_fd = fds
                fds.clear()
                self._service.serve(client, udp_fd, tcp_fd)
            else:
                self._service.serve(client)
        elif kind == "drop":
            self._service.drop(message["id"])
        elif kind == "put":
            self._names.put(
                message["network"], message["title"], message["container"], message["names"], message["addresses"]
            )
        elif kind == "forget":
            self._names.forget(message["network"], message["container"])
        elif kind == "clear":
            self._names.clear()
        elif kind == "state":
            connection.send(msgspec.json.encode({"clients": self._service.clients()}))
        elif kind == "end" and not self._service.clients():
            self._loop.running = False


def main(listener_fd: int) -> NoReturn:
    """Serve until neither clients nor an engine are left."""
    stand_alone()
    loop = Loop("resolver")
    _Control(loop, socket.socket(fileno=listener_fd))
    loop.run()
    os._exit(0)
