"""What a bridge network asks of its host: subnets nobody uses, a bridge with the right switches, forwarding."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface
from typing import NamedTuple

from proa.errors import Conflict
from proa.network import legacy_iptables, sysctls
from proa.network.addresses import AnyNetwork, choose_subnet, choose_unique_local
from proa.network.endpoint import mac_of
from proa.network.files import host_nameservers
from proa.network.firewall import FORWARDING_MARK, FORWARDING_MARK6, Firewall
from proa.network.links import AnyInterface, Link, Links

__all__ = [
    "Settled",
    "SubnetWish",
    "host_mtu",
    "host_warnings",
    "settle_bridge",
    "switch_forwarding_off",
    "switch_forwarding_on",
]

_ETHERNET_MTU = 1500
_FORWARDING = {FORWARDING_MARK: "ipv4/ip_forward", FORWARDING_MARK6: "ipv6/conf/all/forwarding"}
# Kinds of links that others forward packets over; with one of them about, ip_forward stays on.
_FORWARDING_KINDS = {"bridge", "tun", "wireguard", "vxlan", "macvlan", "ipvlan", "gre", "ipip"}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


class SubnetWish(NamedTuple):
    """One family's subnet: the one of last time or the user's, or None to choose; fixed: no other will do."""

    version: int
    subnet: AnyNetwork | None
    gateway: str = ""
    fixed: bool = False


class Settled(NamedTuple):
    """A bridge that is up with addresses no other link of the host overlaps."""

    link: Link
    gateways: tuple[AnyInterface, ...]
    warnings: tuple[str, ...]


def settle_bridge(
    links: Links,
    name: str,
    wishes: Sequence[SubnetWish],
    pools: Sequence[IPv4Network],
    *,
    seed: int,
    root_number: int,
    keep: bool,
    new: bool,
    mtu: int,
    alias: str,
) -> Settled:
    """Bridge `name`, made if it is not there, with the gateway's address of subnets that nothing on the host overlaps.

    keep: containers live in them, so they stay even when they clash (a warning); new: the network is being made, so a
    fixed subnet that clashes is refused; alias: what the engine's own links bear, others are left alone. Two engines
    may choose the same subnet in the same moment: after putting its address on the bridge each looks again, and whoever
    then sees another gives way to try elsewhere.
    Raises Exhausted, Conflict, OSError.
    """
    while True:
        link = links.find(name)
        if link is not None and (link.kind != "bridge" or link.alias != alias):
            hint = "remove it, or choose another com.docker.network.bridge.name"
            raise Conflict(
                f"the host has a link {name} that is not of this engine", code="link-name", subject=name, hint=hint
            )
        gateways: list[AnyInterface] = []
        warnings: list[str] = []
        chosen: list[AnyNetwork] = []
        for wish in wishes:
            taken = _taken(links, link.number if link else 0, wish.version)
            subnet = wish.subnet
            clashes = [(net, what) for net, what in taken if subnet is not None and net.overlaps(subnet)]
            if subnet is not None and clashes and (keep or wish.fixed):
                if new:
                    raise _overlap(subnet, *clashes[0])
                warnings += [f"subnet {subnet} of {name} overlaps {what}, in use since" for _, what in clashes]
            elif subnet is None or clashes:
                subnet = _choose(wish.version, pools, [net for net, _ in taken], seed, root_number)
                chosen.append(subnet)
            gateways.append(ip_interface(f"{wish.gateway or subnet.network_address + 1}/{subnet.prefixlen}"))
        if link is None:
            links.create_bridge(name, mac_of(gateways[0].packed), mtu, alias)
            link = links.find(name)
            assert link is not None
        _switch_bridge(name, ipv6=any(gateway.version == 6 for gateway in gateways))
        _address_bridge(links, link, gateways)
        rivals = [
            other
            for index, other in links.addresses()
            if index != link.number and any(net.version == 4 and other.network.overlaps(net) for net in chosen)
        ]
        if not rivals:
            return Settled(link, tuple(gateways), tuple(warnings))
        for gateway in gateways:
            links.remove_address(link.number, gateway, name)
        # Both may have given way: the next place and moment are drawn by lot.
        seed = int.from_bytes(os.urandom(4), "big")
        time.sleep((1 + seed % 10) / 1000)


def _choose(
    version: int, pools: Sequence[IPv4Network], taken: Sequence[AnyNetwork], seed: int, root_number: int
) -> AnyNetwork:
    if version == 4:
        return choose_subnet(pools, [net for net in taken if isinstance(net, IPv4Network)], seed)
    return choose_unique_local(root_number, seed, [net for net in taken if isinstance(net, IPv6Network)])


def _overlap(subnet: AnyNetwork, net: AnyNetwork, what: str) -> Conflict:
    return Conflict(
        f"invalid pool request: Pool overlaps with other one on this address space: {subnet} overlaps {what}",
        code="pool-overlaps",
        subject=str(subnet),
        hint=f"choose a subnet outside {net}",
    )


def _taken(links: Links, own_index: int, version: int) -> list[tuple[AnyNetwork, str]]:
    """Networks in use, with words for it: other links' addresses, routes but the default one, name servers."""
    names = {link.number: link.name for link in links.all()}
    family = _FAMILY[version]
    taken: list[tuple[AnyNetwork, str]] = [
        (address.network, f"{address} of {names.get(index, index)}")
        for index, address in links.addresses(family)
        if index != own_index and not address.is_link_local
    ]
    taken += [
        (net, f"route {net} by {names.get(index, 'several links')}")
        for index, net in links.routes(family)
        if net.prefixlen and (index == 0 or index != own_index) and not (net.is_link_local or net.is_multicast)
    ]
    for server in host_nameservers():
        address = ip_address(server)
        if address.version == version and not address.is_loopback:
            taken.append((ip_interface(str(address)).network, f"name server {server}"))
    return taken


def _address_bridge(links: Links, link: Link, gateways: Sequence[AnyInterface]) -> None:
    for version, family in _FAMILY.items():
        for index, address in links.addresses(family):
            if index == link.number and address not in gateways and not (version == 6 and address.is_link_local):
                links.remove_address(index, address, link.name)
    for gateway in gateways:
        links.add_address(link.number, gateway, link.name)
    if not link.up:
        links.set_up(link.number, link.name)


def _switch_bridge(name: str, *, ipv6: bool) -> None:
    # Packets of the host's own 127.0.0.1 go out to a published container; the table's guard keeps others from using it.
    sysctls.write(f"ipv4/conf/{name}/route_localnet", "1")
    # Whoever asks here for the address of another of the host's links is not told that the host has it.
    sysctls.write(f"ipv4/conf/{name}/arp_ignore", "1")
    if sysctls.has_ipv6():
        sysctls.write(f"ipv6/conf/{name}/accept_ra", "0")
        sysctls.write(f"ipv6/conf/{name}/disable_ipv6", "0" if ipv6 else "1")


def switch_forwarding_on(firewall: Firewall, *, ipv6: bool) -> None:
    """Turn forwarding on, with a note in the kernel that it was off.

    A host that forwards IPv6 no longer listens to its router unless told so: those that listened go on listening.
    """
    for mark in (FORWARDING_MARK, *((FORWARDING_MARK6,) if ipv6 else ())):
        switch = _FORWARDING[mark]
        if sysctls.read(switch) != "0":
            continue
        listening = _accepting("1") if mark == FORWARDING_MARK6 else []
        firewall.mark_forwarding(mark, listening)
        for name in listening:
            sysctls.write_if_any(_accept_ra(name), "2")
        sysctls.write(switch, "1")


def switch_forwarding_off(firewall: Firewall, links: Links) -> None:
    """Turn forwarding off again if an engine of ours turned it on and nobody else forwards on this host.

    With foreigners about the switch is left to them. Call it with the own table and bridge gone: an engine that starts
    meanwhile has installed its table before it looks at the switch, so looking once more afterwards sees it.
    """
    for mark, switch in _FORWARDING.items():
        if not firewall.forwarding_is_marked(mark) or firewall.other_engines():
            continue
        if not firewall.others_forward() and not _others_forward(links):
            sysctls.write(switch, "0")
            if firewall.other_engines():
                sysctls.write(switch, "1")
                continue
            for name in set(firewall.marked_links(mark)) & set(_accepting("2")):
                sysctls.write_if_any(_accept_ra(name), "1")
        firewall.unmark_forwarding(mark)


def _accept_ra(link: str) -> str:
    return f"ipv6/conf/{link}/accept_ra"


def _accepting(value: str) -> list[str]:
    """The links (and `default`) whose `accept_ra` is that: 1 listens to routers unless the host forwards, 2 always."""
    if not sysctls.has_ipv6():
        return []
    names = [name for name in sysctls.names("ipv6/conf") if name not in ("all", "lo")]
    return [name for name in names if sysctls.read_if_any(_accept_ra(name)) == value]


def _others_forward(links: Links) -> bool:
    return bool(legacy_iptables.tables()) or any(link.kind in _FORWARDING_KINDS for link in links.all())


def host_mtu(links: Links) -> int:
    """The MTU towards the outside: that of the default route's link, at most Ethernet's; Ethernet's without a route.

    A larger one inside would leave it to ICMP, which many networks drop, to tell containers the truth.
    """
    outward = {index for index, net in links.routes() if net.prefixlen == 0}
    sizes = [link.mtu for link in links.all() if link.number in outward and link.mtu >= 576]
    return min([_ETHERNET_MTU, *sizes])


def host_warnings(firewall: Firewall, bridge: str) -> list[str]:
    """What other firewalls of this host will do to the network's packets."""
    found = firewall.closed_by()
    if legacy_iptables.forward_policy_drops():
        found.append("legacy iptables table filter chain FORWARD")
    rule = f"iptables -I FORWARD -i {bridge} -j ACCEPT; iptables -I FORWARD -o {bridge} -j ACCEPT"
    return [
        f"{chain} drops forwarded packets by default: containers of {bridge} may not reach the outside nor their "
        f"published ports be reached; allow them there: {rule}"
        for chain in found
    ]
