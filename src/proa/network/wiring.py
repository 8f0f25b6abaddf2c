"""The veth pair between a container and its bridge: made, configured inside, and taken away."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from proa.errors import Internal
from proa.network import sysctls
from proa.network.addresses import AddressPool, AnyAddress
from proa.network.endpoint import AttachRequest, Endpoint, mac_of, parse_mac
from proa.network.links import Interior, Links, VethPair
from proa.network.netlink import NETLINK_ROUTE, Channel, NetlinkFailure

if TYPE_CHECKING:
    from proa.network.bridge import BridgeNetwork

__all__ = ["container_sysctls", "endpoint_of", "interior_of", "place_on_bridge"]


def interior_of(
    pools: Mapping[int, AddressPool], addresses: Sequence[AnyAddress], request: AttachRequest, *, internal: bool
) -> Interior:
    """What the container's interface is given."""
    inside = tuple(ip_interface(f"{address}/{pools[address.version].subnet.prefixlen}") for address in addresses)
    routed = request.default_route and not internal
    return Interior(inside, tuple(pool.gateway for pool in pools.values()) if routed else ())


def place_on_bridge(
    network: BridgeNetwork,
    container_id: str,
    netns_fd: int,
    rtnl_fd: int,
    request: AttachRequest,
    interior: Interior,
) -> Endpoint:
    """Make the pair and configure its inner end. A failure leaves no link."""
    first = interior.addresses[0].ip
    mac = parse_mac(request.mac) if request.mac else mac_of(first.packed)
    host_interface = f"{network.fabric.port_prefixes[network.spec.ipv6]}{first.packed[-4:].hex()}"
    _create_veth(network, netns_fd, host_interface, request.interface, mac)
    try:
        with Channel(NETLINK_ROUTE, fd=rtnl_fd) as channel:
            inside = Links(channel)
            peer = inside.find(request.interface)
            if peer is None:
                raise Internal(
                    f"{request.interface} of {container_id} is not in the namespace of its socket", code="rtnl-fd"
                )
            inside.configure(peer.number, request.interface, interior)
    except BaseException:
        network.fabric.links.delete(host_interface)
        raise
    return endpoint_of(
        network.name,
        {} if network.spec.internal else network.gateways(),
        container_id,
        request,
        interior,
        mac=mac,
        mtu=network.mtu,
        host_interface=host_interface,
        host_number=peer.peer,
    )


def endpoint_of(
    network: str,
    gateways: Mapping[int, str],
    container_id: str,
    request: AttachRequest,
    interior: Interior,
    *,
    mac: str,
    mtu: int,
    host_interface: str = "",
    host_number: int = 0,
) -> Endpoint:
    """The record of an interface that was made."""
    by_version = {address.version: address for address in interior.addresses}
    four, six = by_version.get(4), by_version.get(6)
    return Endpoint(
        container_id=container_id,
        network=network,
        interface=request.interface,
        ip=str(four.ip) if four else "",
        prefix=four.network.prefixlen if four else 0,
        gateway=gateways.get(4, ""),
        ip6=str(six.ip) if six else "",
        prefix6=six.network.prefixlen if six else 0,
        gateway6=gateways.get(6, ""),
        mac=mac,
        mtu=mtu,
        host_interface=host_interface,
        host_number=host_number,
        sysctls=container_sysctls(request.interface, ipv6=six is not None),
    )


def _create_veth(network: BridgeNetwork, netns_fd: int, host_interface: str, interface: str, mac: str) -> None:
    """A pair, past two accidents: a link a crash left under that name, a bridge that was deleted under us."""
    links = network.fabric.links
    for attempt in range(3):
        pair = VethPair(
            host_name=host_interface,
            bridge_index=network.bridge_index,
            peer_name=interface,
            peer_mac=mac,
            peer_netns_fd=netns_fd,
            mtu=network.mtu,
            isolated=not network.spec.icc,
        )
        try:
            return links.create_veth(pair)
        except NetlinkFailure as error:
            if attempt == 2:
                raise
            if links.find(network.bridge) is None:
                network.remake()
            elif error.errno != errno.EEXIST or not links.delete(host_interface):
                raise
    return None


def container_sysctls(interface: str, *, ipv6: bool) -> dict[str, str]:
    """No address or route of a neighbour's making; and no IPv6 at all on a network without it."""
    if not sysctls.has_ipv6():
        return {}
    return {
        f"net.ipv6.conf.{interface}.accept_ra": "0",
        f"net.ipv6.conf.{interface}.disable_ipv6": "0" if ipv6 else "1",
    }
