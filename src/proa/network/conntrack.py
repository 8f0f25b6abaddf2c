"""Forget tracked connections that translate to a container that is gone, or do not know a port was published since.

Connection tracking decides about a flow once, at its first packet: a udp client that keeps sending (or a tcp client
that reuses its port) would otherwise go to the old place for as long as the entry lives (linux/nfnetlink_conntrack.h).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv6Address

from proa.network.endpoint import PROTOCOL_NUMBERS
from proa.network.netlink import (
    NETLINK_NETFILTER,
    Channel,
    NetlinkFailure,
    Step,
    attribute,
    attributes,
    be32,
    nested,
    u32,
)

__all__ = ["forget_flows"]

_SUBSYSTEM = 1 << 8
_GET, _DELETE = 1, 2
_ORIGINAL, _REPLY, _STATUS, _ID, _FILTER, _STATUS_MASK = 1, 2, 3, 12, 25, 26
_ADDRESSES, _PROTOCOL = 1, 2
_SOURCES: dict[int, int] = {socket.AF_INET: 1, socket.AF_INET6: 3}
_NUMBER, _DESTINATION_PORT = 1, 3
_FILTER_ORIGINAL_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_FLAG_PROTOCOL = 1 << 3
_DESTINATION_TRANSLATED = 1 << 5


def forget_flows(containers: AbstractSet[IPv4Address | IPv6Address], udp_ports: AbstractSet[int]) -> int:
    """Delete translated flows whose answers come from `containers`, and udp flows to `udp_ports`; the number deleted.

    Walking the kernel's table takes it some 20 ms however short the list, so collect and call from the background.
    Returns 0 on a kernel without the connection tracking interface: such flows end by their own time-out.
    """
    try:
        with Channel(NETLINK_NETFILTER) as channel:
            count = 0
            for version, header in _HEADERS.items():
                addresses = {address.packed for address in containers if address.version == version}
                flows = _translated_to(channel, header, addresses) if addresses else []
                if udp_ports:
                    flows += _udp_to(channel, header, udp_ports)
                count += sum(_delete(channel, header, body) for body in flows)
            return count
    except NetlinkFailure as error:
        if error.errno not in {errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP, errno.EINTR}:
            raise
        return 0


def _translated_to(channel: Channel, header: bytes, containers: AbstractSet[bytes]) -> list[bytes]:
    # The kernel filters by status (5.15 and later; older ones list everything), we look again at what it returns.
    wanted = be32(_STATUS, _DESTINATION_TRANSLATED) + be32(_STATUS_MASK, _DESTINATION_TRANSLATED)
    found = []
    for body in channel.dump(Step("list translated flows", _SUBSYSTEM | _GET, 0, header + wanted)):
        reply = attributes(attributes(body, 4).get(_REPLY, b""))
        if attributes(reply.get(_ADDRESSES, b"")).get(_SOURCES[header[0]], b"") in containers:
            found.append(body)
    return found


def _udp_to(channel: Channel, header: bytes, ports: AbstractSet[int]) -> list[bytes]:
    protocol = nested(_PROTOCOL, attribute(_NUMBER, _UDP))
    flags = nested(_FILTER, u32(_FILTER_ORIGINAL_FLAGS, _FLAG_PROTOCOL), u32(_FILTER_REPLY_FLAGS, 0))
    found = []
    step = Step("list udp flows", _SUBSYSTEM | _GET, 0, header + nested(_ORIGINAL, protocol) + flags)
    for body in channel.dump(step):
        fields = attributes(attributes(attributes(body, 4).get(_ORIGINAL, b"")).get(_PROTOCOL, b""))
        if fields.get(_NUMBER) == _UDP and int.from_bytes(fields.get(_DESTINATION_PORT, b""), "big") in ports:
            found.append(body)
    return found


def _delete(channel: Channel, header: bytes, body: bytes) -> bool:
    """Delete a listed flow: its tuple as the kernel wrote it, and its id so that a newer flow is left alone."""
    fields = attributes(body, 4)
    wanted = nested(_ORIGINAL, fields[_ORIGINAL])
    if _ID in fields:
        wanted += attribute(_ID, fields[_ID])
    try:
        channel.request(Step("delete flow", _SUBSYSTEM | _DELETE, 0, header + wanted))
    except NetlinkFailure as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True


_HEADERS = {4: struct.pack("=BBH", socket.AF_INET, 0, 0), 6: struct.pack("=BBH", socket.AF_INET6, 0, 0)}
_UDP = bytes([PROTOCOL_NUMBERS["udp"]])
