"""The doors of published ports, and what goes through them."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_network

from proa.linux.events import IN, Loop
from proa.relay.datagrams import Datagrams
from proa.relay.sources import Place, Sources
from proa.relay.streams import Pipes, Stream

__all__ = ["STEP_S", "Key", "Traffic"]

# How often `tick` is to be called, at least.
STEP_S = 5.0
_BURST = 64

Key = tuple[str, str, int]


class Traffic:
    """Doors by protocol, address and port. Not thread-safe: all of it happens in one loop."""

    def __init__(self, loop: Loop, most: int) -> None:
        """most: connections that may be open at once; further ones wait in front of the doors."""
        self.loop = loop
        self._most = most
        self._pipes = Pipes()
        self._sources = Sources()
        self._doors: dict[Key, socket.socket] = {}
        self._targets: dict[Key, list[Place]] = {}
        self._datagrams: dict[Key, Datagrams] = {}
        self._streams: set[Stream] = set()
        self._full = False
        self._looked = time.monotonic()

    @property
    def idle(self) -> bool:
        """Whether there are neither doors nor connections."""
        return not self._doors and not self._streams

    def tick(self) -> None:
        """What is due now and then."""
        now = time.monotonic()
        if now - self._looked > STEP_S:
            self._looked = now
            for each in self._datagrams.values():
                each.tick(now)
        if self._full and len(self._streams) < self._most:
            self._full = False
            for key in self._doors:
                self._watch(key)

    def take(self, key: Key, targets: list[Place], fd: int) -> None:
        """A new door; one that is there already is replaced."""
        self.shut(key)
        door = socket.socket(fileno=fd)
        door.setblocking(False)
        self._doors[key] = door
        self.aim(key, targets)

    def aim(self, key: Key, targets: list[Place]) -> None:
        """Where its connections go from now on."""
        if key not in self._doors:
            raise OSError(errno.ENOENT, "door")
        if self._targets.get(key) == targets:
            return
        self._targets[key] = targets
        if key[0] == "udp":
            old = self._datagrams.pop(key, None)
            if old is not None:
                old.close()
            self._datagrams[key] = Datagrams(self.loop, self._sources, self._doors[key], targets[0])
        else:
            self._watch(key)

    def give(self, key: Key) -> socket.socket:
        """Its socket."""
        if key not in self._doors:
            raise OSError(errno.ENOENT, "door")
        return self._doors[key]

    def shut(self, key: Key) -> None:
        """Close a door; one that is not there is fine."""
        door = self._doors.pop(key, None)
        self._targets.pop(key, None)
        datagrams = self._datagrams.pop(key, None)
        if datagrams is not None:
            datagrams.close()
        if door is not None:
            self.loop.forget(door.fileno())
            door.close()

    def part(self, address: str) -> None:
        """End what goes to a container that has gone."""
        for stream in [stream for stream in self._streams if stream.target[0] == address]:
            stream.abort()
        for datagrams in self._datagrams.values():
            if datagrams.target[0] == address:
                datagrams.forget()

    def keep(self, mark: int, versions: Sequence[int], near: Sequence[str]) -> None:
        """Which clients' addresses are kept."""
        self._sources.keep(mark, versions, [ip_network(text) for text in near])

    def listed(self) -> list[Key]:
        """The doors."""
        return list(self._doors)

    def _watch(self, key: Key) -> None:
        if key[0] == "tcp":
            self.loop.watch(self._doors[key].fileno(), IN, partial(self._accept, key))

    def _accept(self, key: Key, _: int) -> None:
        for _ in range(_BURST):
            if len(self._streams) >= self._most:
                self._full = True
                for door in self._doors.values():
                    if door.type == socket.SOCK_STREAM:
                        self.loop.forget(door.fileno())
                return
            try:
                outer, client = self._doors[key].accept()
            except BlockingIOError:
                return
            except OSError:
                continue  # it has gone before we looked
            outer.setblocking(False)
            place = (client[0], client[1])
            targets = self._targets[key]
            stream = Stream(self.loop, self._pipes, self._sources, outer, place, targets, self._streams.discard)
            self._streams.add(stream)
            stream.connect()
