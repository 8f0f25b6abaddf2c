"""The relay's process: one an engine, started with the first port that needs it, and outliving the engine.

    engine --one message at a time--> socket `relay.sock`, each answered with "0" and words, or with an errno
       take PROTOCOL ADDRESS PORT TARGET-PORT TARGET...  + socket from now on this door is open
       aim PROTOCOL ADDRESS PORT TARGET-PORT TARGET...            its container is there now, tried in this order
       give PROTOCOL ADDRESS PORT                                 answered with a copy of its socket
       shut PROTOCOL ADDRESS PORT                                 closed; its connections live on
       part ADDRESS                                               connections to a container that has gone end
       keep MARK VERSIONS SUBNET...                               which clients' addresses are kept (`sources`)
       list                                                       PROTOCOL ADDRESS PORT of each door
       where                                                      the number of the network namespace
       quit                                                       everything ends

Without an engine it goes on with what it has, and ends when neither an engine, doors nor connections are left.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import sys
import time
from functools import partial
from typing import NoReturn

from proa.linux.companion import stand_alone
from proa.linux.events import IN, Loop
from proa.linux.sockets import receive_fds, send_fds
from proa.relay.traffic import STEP_S, Key, Traffic

__all__ = ["MESSAGE_BYTES", "main"]

MESSAGE_BYTES = 64 << 10
# Descriptors of one connection: two sockets, two pipes.
_EACH = 6
_SPARE = 128
_PATIENCE_S = 60.0


class _Control:
    """The engine's side of things."""

    def __init__(self, traffic: Traffic, listener: socket.socket) -> None:
        self._traffic = traffic
        self._listener = listener
        self._engines = 0
        self._until = time.monotonic() + _PATIENCE_S
        traffic.loop.watch(listener.fileno(), IN, self._accept)

    def _accept(self, _: int) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return
        self._engines += 1
        self._traffic.loop.watch(connection.fileno(), IN, partial(self._message, connection))

    def over(self) -> bool:
        """Whether nobody needs this process any more; a new one waits for its engine for a while."""
        return not self._engines and self._traffic.idle and time.monotonic() >= self._until

    def _message(self, connection: socket.socket, _: int) -> None:
        try:
            data, fds = receive_fds(connection, MESSAGE_BYTES, 4)
        except OSError:
            data, fds = b"", []
        if not data:
            self._engines -= 1
            self._until = 0
            self._traffic.loop.forget(connection.fileno())
            connection.close()
            return
        try:
            answer, given = self._do(data.decode().split(), fds)
            send_fds(connection, " ".join(("0", *answer)).encode(), given)
        except (ValueError, IndexError, OSError) as error:
            number = (error.errno if isinstance(error, OSError) else None) or errno.EINVAL
            print(f"relay: {data[:80]!r}: {error}", file=sys.stderr, flush=True)
            try:
                connection.send(str(number).encode())
            except OSError:
                pass  # it has gone: the next event says so
        for fd in fds:
            os.close(fd)

    def _do(self, words: list[str], fds: list[int]) -> tuple[list[str], list[int]]:
        traffic = self._traffic
        kind, *rest = words
        if kind in ("take", "aim"):
            key, targets = _key(rest), [(address, int(rest[3])) for address in rest[4:]]
            if kind == "take":
                traffic.take(key, targets, fds.pop())
            else:
                traffic.aim(key, targets)
        elif kind == "give":
            return [], [traffic.give(_key(rest)).fileno()]
        elif kind == "shut":
            traffic.shut(_key(rest))
        elif kind == "part":
            traffic.part(rest[0])
        elif kind == "keep":
            traffic.keep(int(rest[0]), [int(digit) for digit in rest[1] if digit in "46"], rest[2:])
        elif kind == "list":
            return [str(word) for key in traffic.listed() for word in key], []
        elif kind == "where":
            return [str(os.stat("/proc/self/ns/net").st_ino)], []
        elif kind == "quit":
            os._exit(0)
        else:
            raise ValueError("unknown message")
        return [], []


def _key(words: list[str]) -> Key:
    return words[0], words[1], int(words[2])


def main(listener_fd: int) -> NoReturn:
    """Serve until neither an engine, doors nor connections are left."""
    stand_alone()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        most = 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    loop = Loop("relay")
    traffic = Traffic(loop, max(16, (most - _SPARE) // _EACH))
    control = _Control(traffic, socket.socket(fileno=listener_fd))
    while not control.over():
        loop.step(STEP_S)
        traffic.tick()
    os._exit(0)
