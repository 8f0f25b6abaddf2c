"""udp: a socket towards the container for each client, for as long as they talk."""

from __future__ import annotations

import socket
import struct
import time
from functools import partial

from proa.linux.events import IN, Loop
from proa.relay.sources import Place, Sources

__all__ = ["Datagrams"]

_LARGEST_BYTES = 65535
_BURST = 64
# Docker's proxy forgets a client after as long a silence.
_IDLE_S = 90.0
_MOST_CLIENTS = 4096
_CONTROL_BYTES = socket.CMSG_SPACE(20)
# How the address that a datagram was sent to is told, and set: struct in_pktinfo, struct in6_pktinfo (ip(7), ipv6(7)).
_IP_PKTINFO = 8
_PKTINFO = {
    socket.AF_INET: (socket.IPPROTO_IP, _IP_PKTINFO, _IP_PKTINFO),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, socket.IPV6_PKTINFO),
}


class _Client:
    """One client's datagrams: `control` makes answers come from the address that was asked."""

    def __init__(self, inner: socket.socket, place: tuple[str, int], control: list[tuple[int, int, bytes]]) -> None:
        self.inner, self.place, self.control = inner, place, control
        self.heard = time.monotonic()


class Datagrams:
    """The clients of one udp door."""

    def __init__(self, loop: Loop, sources: Sources, door: socket.socket, target: Place) -> None:
        self.target = target
        self._loop, self._sources, self._door = loop, sources, door
        self._level, option, self._option = _PKTINFO[socket.AddressFamily(door.family)]
        door.setsockopt(self._level, option, 1)
        self._clients: dict[tuple[object, ...], _Client] = {}
        loop.watch(door.fileno(), IN, self._asked)

    def close(self) -> None:
        """Forget all clients; the door stays its owner's."""
        self._loop.forget(self._door.fileno())
        self.forget()

    def forget(self) -> None:
        """Forget all clients."""
        for key in list(self._clients):
            self._drop(key)

    def tick(self, now: float) -> None:
        """Forget those that have been silent."""
        for key in [key for key, client in self._clients.items() if now - client.heard > _IDLE_S]:
            self._drop(key)

    def _drop(self, key: tuple[object, ...]) -> None:
        client = self._clients.pop(key)
        self._loop.forget(client.inner.fileno())
        client.inner.close()

    def _asked(self, _: int) -> None:
        for _ in range(_BURST):
            try:
                data, control, _, place = self._door.recvmsg(_LARGEST_BYTES, _CONTROL_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # an earlier answer met a closed port
            packed = next(
                (value for level, kind, value in control if (level, kind) == (self._level, self._option)), b""
            )
            key = (place, packed)
            client = self._clients.get(key)
            try:
                if client is None:
                    client = self._admit(key, place, packed)
                client.heard = time.monotonic()
                client.inner.send(data)
            except OSError:
                continue  # as a datagram gets lost

    def _admit(self, key: tuple[object, ...], place: tuple[str, int], packed: bytes) -> _Client:
        if len(self._clients) >= _MOST_CLIENTS:
            self._drop(min(self._clients, key=lambda each: self._clients[each].heard))
        inner = self._sources.datagrams(self.target, (place[0], place[1]))
        client = self._clients[key] = _Client(inner, place, self._answer_from(packed))
        self._loop.watch(inner.fileno(), IN, partial(self._answered, client))
        return client

    def _answer_from(self, packed: bytes) -> list[tuple[int, int, bytes]]:
        if self._door.family == socket.AF_INET and len(packed) == 12:
            # ipi_ifindex, ipi_spec_dst, ipi_addr: what was the destination becomes the source, by whichever link.
            packed = struct.pack("=i4s4s", 0, packed[8:12], bytes(4))
        return [(self._level, self._option, packed)] if packed else []

    def _answered(self, client: _Client, _: int) -> None:
        for _ in range(_BURST):
            try:
                data = client.inner.recv(_LARGEST_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # nobody listens in the container
            client.heard = time.monotonic()
            try:
                self._door.sendmsg([data], client.control, 0, client.place)
            except OSError:
                continue
