"""Other users of the same host: their subnets, their firewalls, other engines that start in the same moment."""

from __future__ import annotations

import socket
import struct
import threading
from ipaddress import IPv4Interface, IPv4Network

import pytest
from netlab import Lab, LabNetwork

from proa.errors import Exhausted
from proa.network import legacy_iptables
from proa.network.links import Links
from proa.network.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Channel, Step, be32, nested, text

pytestmark = pytest.mark.root


def _use(lab: Lab, name: str, address: str) -> None:
    with Channel(NETLINK_ROUTE, fd=lab.host.route_fd) as channel:
        links = Links(channel)
        links.create_bridge(name, "02:00:00:00:00:09", 1500)
        link = links.find(name)
        assert link is not None
        links.add_address(link.number, IPv4Interface(address), name)


def test_a_subnet_in_use_is_not_chosen(lab: Lab) -> None:
    pool = [IPv4Network("10.77.0.0/21")]
    _use(lab, "other0", "10.77.2.9/24")
    network = lab.network(pools=pool)
    network.ensure()
    assert network.subnet == IPv4Network("10.77.4.0/22")
    with pytest.raises(Exhausted, match=r"no free subnet in 10.77.0.0/21: this host uses .*10.77.2.0/24"):
        lab.network("second", pools=pool).ensure()


def test_a_subnet_that_came_into_use_since_is_given_up_unless_containers_live_there(lab: Lab) -> None:
    network = lab.network()
    network.ensure()
    first = network.subnet
    assert first is not None
    network.destroy()
    _use(lab, "vpn0", f"{first[1]}/24")
    network.ensure()
    second = network.subnet
    assert second is not None
    assert second != first
    lab.container(network, "a")
    _use(lab, "vpn1", f"{second[9]}/24")
    warnings = network.settle(["a"])
    assert network.subnet == second
    assert any("overlaps" in warning for warning in warnings)


def test_engines_that_start_together_get_subnets_of_their_own(lab: Lab) -> None:
    """All begin their search at the same place, so all clash."""
    pool = [IPv4Network("10.77.0.0/19")]
    networks = [lab.network(f"engine{number}", pools=pool) for number in range(6)]
    ready = threading.Barrier(len(networks))

    def start(network: LabNetwork) -> None:
        network._seed = 0
        ready.wait()
        network.ensure()

    threads = [threading.Thread(target=start, args=(network,)) for network in networks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({network.subnet for network in networks}) == len(networks)


def _closed_forward_chain() -> None:
    """`nft add table ip filter; nft add chain ip filter FORWARD { type filter hook forward ... policy drop; }`"""
    header = struct.pack("=BBH", 2, 0, socket.htons(0))
    hook = nested(4, be32(1, 2), be32(2, 0))
    chain = text(1, "filter") + text(3, "FORWARD") + hook + be32(5, 0) + text(7, "filter")
    with Channel(NETLINK_NETFILTER) as channel:
        channel.transaction(
            [
                Step("table", 10 << 8 | 0, 0x400, header + text(1, "filter")),
                Step("chain", 10 << 8 | 3, 0x400, header + chain),
            ]
        )


def test_a_forward_policy_that_drops_is_told_and_left_alone(lab: Lab) -> None:
    _closed_forward_chain()
    network = lab.network()
    network.ensure()
    (warning,) = network.said()
    assert "table ip filter chain FORWARD drops forwarded packets by default" in warning
    assert f"iptables -I FORWARD -i {network.bridge} -j ACCEPT" in warning
    network.destroy()
    assert lab.tables() == ["filter"]
    assert lab.host.sysctl("ipv4/ip_forward") == "1"


def test_legacy_iptables_is_asked_without_loading_it(lab: Lab) -> None:
    assert legacy_iptables.tables() == set()
    assert not legacy_iptables.forward_policy_drops()
    assert legacy_iptables.tables() == set()
