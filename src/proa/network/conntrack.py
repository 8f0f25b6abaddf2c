"""Forget tracked connections that translate to a container that is gone, or do not know a port was published since.

Connection tracking decides about a flow once, at its first packet: a udp client that keeps sending (or a tcp client
that reuses its port) would otherwise go to the old place for as long as the entry lives (linux/nfnetlink_conntrack.h).
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address

from proa.network.endpoint import PROTOCOL_NUMBERS
from proa.network.netlink import NETLINK_NETFILTER, Channel, NetlinkFailure, Step, attribute, attributes, nested, u32

__all__ = ["forget_flows"]

_SUBSYSTEM = 1 << 8
_GET, _DELETE = 1, 2
_ORIGINAL, _REPLY, _ID, _FILTER = 1, 2, 12, 25
_ADDRESSES, _PROTOCOL = 1, 2
_SOURCE, _DESTINATION = 1, 2
_NUMBER, _DESTINATION_PORT = 1, 3
_FILTER_REPLY_SOURCE, _FILTER_PROTOCOL = 1 << 0, 1 << 3


def forget_flows(container: IPv4Address, udp_ports: frozenset[int] = frozenset()) -> int:
    """Delete flows whose answers come from `container`, and udp flows to one of `udp_ports`; the number deleted.

    Returns 0 on a kernel without the connection tracking interface: such flows end by their own time-out.
    """
    deleted = 0
    try:
        with Channel(NETLINK_NETFILTER) as channel:
            for body in _flows(channel, container, udp_ports):
                fields = attributes(body, 4)
                # The tuple as the kernel wrote it, and the id so that a newer flow of the same tuple is left alone.
                wanted = _header() + nested(_ORIGINAL, fields[_ORIGINAL])
                if _ID in fields:
                    wanted += attribute(_ID, fields[_ID])
                try:
                    channel.request(Step("delete flow", _SUBSYSTEM | _DELETE, 0, wanted))
                except NetlinkFailure as error:
                    if error.errno != errno.ENOENT:
                        raise
                else:
                    deleted += 1
    except NetlinkFailure as error:
        if error.errno not in {errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP, errno.EINTR}:
            raise
    return deleted


def _flows(channel: Channel, container: IPv4Address, udp_ports: frozenset[int]) -> list[bytes]:
    found = []
    # The kernel filters by address (5.8 and later; older ones list everything), we look again at what it returns.
    addresses = nested(_ADDRESSES, attribute(_SOURCE, container.packed))
    wanted = nested(_REPLY, addresses) + nested(_FILTER, u32(1, 0), u32(2, _FILTER_REPLY_SOURCE))
    for body in channel.dump(Step("list flows", _SUBSYSTEM | _GET, 0, _header() + wanted)):
        reply = attributes(attributes(body, 4).get(_REPLY, b""))
        if attributes(reply.get(_ADDRESSES, b"")).get(_SOURCE) == container.packed:
            found.append(body)
    if not udp_ports:
        return found
    protocol = nested(_PROTOCOL, attribute(_NUMBER, bytes([PROTOCOL_NUMBERS["udp"]])))
    wanted = nested(_ORIGINAL, protocol) + nested(_FILTER, u32(1, _FILTER_PROTOCOL), u32(2, 0))
    for body in channel.dump(Step("list udp flows", _SUBSYSTEM | _GET, 0, _header() + wanted)):
        original = attributes(attributes(attributes(body, 4).get(_ORIGINAL, b"")).get(_PROTOCOL, b""))
        port = int.from_bytes(original.get(_DESTINATION_PORT, b""), "big")
        if original.get(_NUMBER) == bytes([PROTOCOL_NUMBERS["udp"]]) and port in udp_ports and body not in found:
            found.append(body)
    return found


def _header() -> bytes:
    return struct.pack("=BBH", socket.AF_INET, 0, 0)
