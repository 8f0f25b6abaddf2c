"""The relay's socket towards a container: with the client's own address where answers to it come back to us.

    client 203.0.113.9:40000 -> door | relay -> container      bound to 203.0.113.9:40000 (IP_TRANSPARENT), marked
                                     | relay <- container      by the mark of its connection, routed to us: a local
                                                               route that the engine has made

ip(7) IP_TRANSPARENT, socket(7) SO_MARK; both ask for CAP_NET_ADMIN in the network namespace.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

__all__ = ["CLOSED", "SYN_SENT", "Place", "Sources"]

Place = tuple[str, int]
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_SO_MARK = 36
# What connect_ex says of a connection that is being made, or is there.
_UNDER_WAY = {0, errno.EINPROGRESS}
# Of what tcp(7) TCP_INFO tells: the state, first, and how many segments have come (struct tcp_info, linux/tcp.h).
SYN_SENT, CLOSED = 2, 7
_SEGMENTS_IN, _TCP_INFO_BYTES, _NONE = 140, 144, bytes(4)
_TRIES = 4
_TAKEN = {errno.EADDRINUSE, errno.EADDRNOTAVAIL}


class Sources:
    """Which clients' addresses are kept: of which IP versions, and not those of networks that containers are on."""

    def __init__(self) -> None:
        self._mark = 0
        self._versions: frozenset[int] = frozenset()
        self._near: tuple[IPv4Network | IPv6Network, ...] = ()

    def keep(self, mark: int, versions: Sequence[int], near: Sequence[IPv4Network | IPv6Network]) -> None:
        """Keep addresses of these versions from now on, on sockets with that mark.

        near: where a container would look for the client on its own link.
        """
        self._mark, self._versions, self._near = mark, frozenset(versions), tuple(near)

    def stream(self, target: Place, client: Place) -> tuple[socket.socket, int]:
        """A tcp socket, not blocking, that is being connected to the container, and its state. Raises OSError.

        A container that closed a connection first remembers its ports for a minute (TIME_WAIT), and lets in another one
        of the same ports only when its timestamps are later (RFC 6191). They begin at a random place for each pair of
        addresses as the client's host saw them; so connections to 127.0.0.1, which reach the container with the source
        that ours have, have others than ours. Refused in that way, the kernel asks again after some 10 ms; we
        at once, from another port.
        """
        kept = self._kept(target[0], client[0])
        port = client[1]
        for left in range(_TRIES, 0, -1):
            made = self._connect(socket.SOCK_STREAM, target, (client[0], port) if kept else None)
            info = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
            # No answer at all means only that it is slow.
            if info[0] != SYN_SENT or info[_SEGMENTS_IN:] == _NONE or left == 1:
                break
            made.close()
            port = 0
        return made, info[0]

    def datagrams(self, target: Place, client: Place) -> socket.socket:
        """A udp socket, not blocking, that is connected to the container. Raises OSError."""
        return self._connect(socket.SOCK_DGRAM, target, client if self._kept(target[0], client[0]) else None)

    def _connect(self, kind: int, target: Place, client: Place | None) -> socket.socket:
        """client: whose address it shall have, with the port unless that is taken."""
        sources = (None,) if client is None else (client, (client[0], 0), None)
        for source in sources:
            made = socket.socket(
                socket.AF_INET6 if ":" in target[0] else socket.AF_INET,
                kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            )
            try:
                if source is not None:
                    self._take(made, source)
                number = made.connect_ex(target)
            except OSError as error:
                number = error.errno or errno.EIO
            if number in _UNDER_WAY:
                return made
            made.close()
            if number not in _TAKEN:
                break
        raise OSError(number, "connect to a container")

    def _take(self, made: socket.socket, source: Place) -> None:
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        made.setsockopt(socket.SOL_SOCKET, _SO_MARK, self._mark)
        # One client's port may lead to several containers.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(source)

    def _kept(self, target: str, client: str) -> bool:
        if not self._versions or "%" in client:
            return False
        address = ip_address(client)
        if address.version not in self._versions or address.version != (6 if ":" in target else 4):
            return False
        if address.is_loopback or address.is_link_local:
            return False
        return not any(address in network for network in self._near if network.version == address.version)
