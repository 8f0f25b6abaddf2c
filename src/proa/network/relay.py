"""Published ports that the kernel cannot redirect, as networks see them: a relay carries their connections.

That is every port of an engine in a network namespace of its own, which its clients are outside of; and on the host
what is sent to ::1, as IPv6 has no route_localnet.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Protocol

from proa.network.addresses import AnyNetwork
from proa.network.endpoint import PublishedPort
from proa.network.firewall import ANSWER_MARK, RELAY_MARK, Target
from proa.network.links import Links
from proa.network.netlink import NetlinkFailure

__all__ = ["Relay", "carried", "redirected", "settle"]

_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
# A kernel without policy routing, without IPv6, or that does not let us.
_NOT_HAD = {errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EINVAL, errno.EPERM, errno.EACCES, errno.ENOPROTOOPT}


class Relay(Protocol):
    """What carries connections, a process of its own. Every method is idempotent and raises OSError or ProaError.

    everything: clients are in another network namespace, so that it has to carry all ports.
    """

    everything: bool

    def bind(self, protocol: str, host_ip: str, port: int) -> socket.socket:
        """Open a door, where the clients are; port 0: the kernel chooses."""
        ...

    def open(self, port: PublishedPort, targets: Sequence[str], door: socket.socket) -> None:
        """Carry what comes to this door to the container, at the first of its addresses that it listens at."""
        ...

    def regain(self, port: PublishedPort) -> socket.socket | None:
        """The door that it has for this port since an earlier engine."""
        ...

    def shut(self, port: PublishedPort) -> None:
        """Close the door; connections live on."""
        ...

    def part(self, target: str) -> None:
        """End the connections of a container that has gone."""
        ...

    def keep(self, mark: int, versions: Sequence[int], near: Sequence[AnyNetwork]) -> None:
        """Keep clients' addresses of these IP versions, except those `near`, on sockets of that mark."""
        ...

    def settle(self, ports: Iterable[PublishedPort]) -> None:
        """Shut the doors of all other ports."""
        ...


def carried(relay: Relay | None, protocol: str, host_ip: str) -> bool:
    """Whether a relay carries (part of) what comes to that address."""
    return relay is not None and protocol != "sctp" and (relay.everything or host_ip in {"::1", "::"})


def redirected(target: Target) -> bool:
    """Whether the kernel can redirect (part of) what comes to a port."""
    address, port = target
    host = ip_address(port.host_ip)
    return host.version == address.version and not (host.version == 6 and host.is_loopback)


def settle(relay: Relay, links: Links, near: Sequence[AnyNetwork]) -> str:
    """Have clients' addresses kept where that can be; returns why it cannot, empty when it can.

    near: the subnets of networks.
    """
    if not relay.everything:
        return ""
    versions = []
    reason = ""
    for version in (4, 6):
        try:
            _try_transparent(version)
            links.deliver_marked(ANSWER_MARK, version)
        except OSError as error:
            if error.errno not in _NOT_HAD:
                raise
            if version == 4:
                reason = (
                    f"containers see their network's gateway as the source of connections to published ports: {error}"
                )
        else:
            versions.append(version)
    relay.keep(RELAY_MARK, versions, near)
    return reason


def _try_transparent(version: int) -> None:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            if version == 4:
                probe.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
            else:
                probe.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    except OSError as error:
        raise NetlinkFailure("bind to a client's address", error.errno or errno.EPERM) from error
