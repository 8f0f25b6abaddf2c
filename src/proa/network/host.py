"""What a bridge network asks of its host: a subnet nobody uses, a bridge with the right switches, IPv4 forwarding."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from ipaddress import IPv4Interface, IPv4Network
from typing import NamedTuple

from proa.errors import Conflict
from proa.network import legacy_iptables, sysctls
from proa.network.addresses import choose_subnet
from proa.network.endpoint import mac_of
from proa.network.files import host_nameservers
from proa.network.firewall import Firewall
from proa.network.links import Link, Links

__all__ = ["Settled", "host_mtu", "host_warnings", "settle_bridge", "switch_forwarding_off", "switch_forwarding_on"]

_ETHERNET_MTU = 1500
_FORWARDING = "ipv4/ip_forward"
# Kinds of links that others forward packets over; with one of them about, ip_forward stays on.
_FORWARDING_KINDS = {"bridge", "tun", "wireguard", "vxlan", "macvlan", "ipvlan", "gre", "ipip"}


class Settled(NamedTuple):
    """A bridge that is up with an address no other link of the host overlaps."""

    link: Link
    subnet: IPv4Network
    warnings: tuple[str, ...]


def settle_bridge(
    links: Links,
    name: str,
    stored: IPv4Network | None,
    pools: Sequence[IPv4Network],
    *,
    seed: int,
    keep: bool,
    mtu: int,
) -> Settled:
    """Bridge `name`, made if it is not there, with the first address of a subnet that nothing on the host overlaps.

    stored: the subnet of last time, preferred; keep: containers live in it, so it stays even when it clashes (a
    warning). Two engines may choose the same subnet in the same moment: after putting its address on the bridge each
    looks again, and whoever then sees another gives way to try elsewhere. Raises Exhausted, Conflict, OSError.
    """
    while True:
        link = links.find(name)
        if link is not None and link.kind != "bridge":
            raise Conflict(f"link {name} exists and is not a bridge", code="link-name", subject=name, hint="remove it")
        taken = _taken(links, link.number if link else 0)
        clashes = [net for net in taken if stored is not None and net.overlaps(stored)]
        subnet = stored if stored is not None and (keep or not clashes) else choose_subnet(pools, taken, seed)
        gateway = IPv4Interface((int(subnet.network_address) + 1, subnet.prefixlen))
        if link is None:
            links.create_bridge(name, mac_of(gateway.packed), mtu)
            link = links.find(name)
            assert link is not None
        _address_bridge(links, link, gateway)
        warnings = tuple(
            f"subnet {subnet} of {name} overlaps {net}, which this host came to use since" for net in clashes if keep
        )
        rivals = [
            other for index, other in links.addresses() if index != link.number and other.network.overlaps(subnet)
        ]
        if keep or not rivals:
            _switch_bridge(name)
            return Settled(link, subnet, warnings)
        links.remove_address(link.number, gateway, name)
        # Both may have given way: the next place and moment are drawn by lot.
        stored, seed = None, int.from_bytes(os.urandom(4), "big")
        time.sleep((1 + seed % 10) / 1000)


def _taken(links: Links, own_index: int) -> list[IPv4Network]:
    """Networks in use: other links' addresses, routes but the default one, name servers."""
    taken = [address.network for index, address in links.addresses() if index != own_index]
    taken += [net for index, net in links.routes() if net.prefixlen and (index == 0 or index != own_index)]
    taken += [IPv4Network(server) for server in host_nameservers() if ":" not in server]
    return taken


def _address_bridge(links: Links, link: Link, gateway: IPv4Interface) -> None:
    for index, address in links.addresses():
        if index == link.number and address != gateway:
            links.remove_address(index, address, link.name)
    links.add_address(link.number, gateway, link.name)
    if not link.up:
        links.set_up(link.number, link.name)


def _switch_bridge(name: str) -> None:
    # Packets of the host's own 127.0.0.1 go out to a published container; the table's guard keeps others from using it.
    sysctls.write(f"ipv4/conf/{name}/route_localnet", "1")
    if sysctls.has_ipv6():
        sysctls.write(f"ipv6/conf/{name}/accept_ra", "0")
        sysctls.write(f"ipv6/conf/{name}/disable_ipv6", "1")


def switch_forwarding_on(firewall: Firewall) -> None:
    """Turn ip_forward on, with a note in the kernel that it was off."""
    if sysctls.read(_FORWARDING) == "0":
        firewall.mark_forwarding()
        sysctls.write(_FORWARDING, "1")


def switch_forwarding_off(firewall: Firewall, links: Links) -> None:
    """Turn ip_forward off again if an engine of ours turned it on and nobody else forwards on this host.

    With foreigners about the switch is left to them. Call it with the own table and bridge gone: an engine that starts
    meanwhile has installed its table before it looks at the switch, so looking once more afterwards sees it.
    """
    if not firewall.forwarding_is_marked() or firewall.other_engines():
        return
    if not firewall.others_forward() and not _others_forward(links):
        sysctls.write(_FORWARDING, "0")
        if firewall.other_engines():
            sysctls.write(_FORWARDING, "1")
            return
    firewall.unmark_forwarding()


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
