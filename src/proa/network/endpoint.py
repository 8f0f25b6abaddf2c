"""What a container's place on a network is: plain records, JSON-able, that the engine keeps and hands back."""

from __future__ import annotations

import re

import msgspec

from proa.errors import Invalid

__all__ = ["PROTOCOL_NUMBERS", "AttachRequest", "Endpoint", "PortRequest", "PublishedPort", "mac_of", "parse_mac"]

PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}


class PortRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A wish to publish one container port.

    host_port 0 lets the kernel choose a free port; with `host_port_end` it is the first free port of
    host_port..host_port_end. host_ip "" means every address.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0

    def check(self) -> None:
        """Raise Invalid unless ports and protocol make sense."""
        if self.protocol not in PROTOCOL_NUMBERS:
            raise Invalid(f"invalid proto: {self.protocol}", code="port-protocol", subject=self.protocol)
        in_range = 1 <= self.container_port <= 65535 and 0 <= self.host_port <= 65535
        if not in_range or not (self.host_port_end == 0 or self.host_port <= self.host_port_end <= 65535):
            text = f"{self.host_port}-{self.host_port_end}:{self.container_port}"
            raise Invalid(f"invalid port specification: {text}", code="port-range", subject=text)


class PublishedPort(msgspec.Struct, frozen=True, kw_only=True):
    """A container port as it is published: host_ip is `0.0.0.0`, `::` or one address, host_port is never 0."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One container's interface on one network.

    ip, ip6: empty on a network without that family; prefix: length of the subnet's prefix; gateway: empty on an
    internal network; host_interface, host_number: the other end of the veth pair; sysctls: what must hold in the
    container's network namespace (the interface exists by then) before its process runs.
    """

    container_id: str
    network: str
    interface: str
    ip: str
    prefix: int
    gateway: str
    mac: str
    mtu: int
    host_interface: str
    host_number: int
    ip6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    ports: tuple[PublishedPort, ...] = ()
    sysctls: dict[str, str] = {}


class AttachRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How a container joins a network.

    ip, ip6, mac: wanted ones, else chosen; interface: its name in the container; default_route: whether the
    container's default routes go by this network.
    """

    interface: str = "eth0"
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    default_route: bool = True


_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}", re.ASCII)


def parse_mac(text: str) -> str:
    """A MAC address in lower case with colons. Raises Invalid for anything but a unicast address."""
    if not _MAC.fullmatch(text):
        raise Invalid(f"invalid MAC address: {text}", code="mac-syntax", subject=text)
    mac = text.lower().replace("-", ":")
    if int(mac[:2], 16) & 1:
        raise Invalid(f"invalid MAC address: {text} is a multicast address", code="mac-syntax", subject=text)
    return mac


def mac_of(packed: bytes) -> str:
    """The locally administered address for an IP address (of IPv6, its last four bytes): the same for as long as the
    address is, so no ARP entry of a neighbour is ever stale after the address was given to another container.
    """
    return (b"\x02\x70" + packed[-4:]).hex(":")
