"""A container's place on the bridge: its interface, what it reaches, what it cannot pretend."""

from __future__ import annotations

import socket
import threading
from ipaddress import IPv4Address, IPv4Interface

import pytest
from netlab import HOST_ADDRESS, OUTSIDE_ADDRESS, Lab, Namespace, ask, eventually, refused, udp_frame

from proa.errors import Conflict, Exhausted, Invalid
from proa.network import bring_loopback_up
from proa.network.links import Links
from proa.network.netlink import NETLINK_ROUTE, Channel

pytestmark = pytest.mark.root


def test_interface_is_as_the_endpoint_says(lab: Lab) -> None:
    network = lab.network()
    inside, endpoint = lab.container(network, "a" * 64)
    with Channel(NETLINK_ROUTE, fd=inside.route_fd) as channel:
        links = Links(channel)
        eth0, lo = links.find("eth0"), links.find("lo")
        assert eth0 is not None
        assert lo is not None
        assert (eth0.mac, eth0.mtu, eth0.up, eth0.kind) == (endpoint.mac, 1500, True, "veth")
        assert lo.up
        assert (eth0.number, IPv4Interface(f"{endpoint.ip}/{endpoint.prefix}")) in links.addresses()
        assert any(link == eth0.number and net.prefixlen == 0 for link, net in links.routes())
        assert len(links.all()) == 2
    assert endpoint.mac == "02:70:" + IPv4Address(endpoint.ip).packed.hex(":")
    assert IPv4Address(endpoint.ip) in (network.subnet or [])
    assert IPv4Address(endpoint.gateway) == (network.subnet or [None, None])[1]
    assert network.endpoints() == {"a" * 64: endpoint}


def test_containers_reach_one_another_and_the_outside_with_the_hosts_address(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network()
    a, _ = lab.container(network, "a")
    b, b_endpoint = lab.container(network, "b")
    lab.service(b, 80, name="b")
    lab.service(outside, 80, name="out")
    assert ask(a, b_endpoint.ip, 80) == f"b {network.endpoints()['a'].ip}"
    assert ask(a, OUTSIDE_ADDRESS, 80) == f"out {HOST_ADDRESS}"
    assert ask(lab.host, b_endpoint.ip, 80) == f"b {b_endpoint.gateway}"


def test_unpublished_ports_are_not_routed_from_outside(lab: Lab) -> None:
    outside = lab.outside()
    a, endpoint = lab.container(lab.network(), "a")
    lab.service(a, 80)
    assert refused(outside, endpoint.ip, 80)


def test_containers_of_two_engines_are_strangers(lab: Lab) -> None:
    one, two = lab.network("one"), lab.network("two")
    a, _ = lab.container(one, "a")
    b, endpoint = lab.container(two, "b")
    lab.service(b, 80)
    assert one.bridge != two.bridge
    assert one.subnet is not None
    assert two.subnet is not None
    assert not one.subnet.overlaps(two.subnet)
    assert refused(a, endpoint.ip, 80)
    assert ask(lab.host, endpoint.ip, 80)


def test_icc_off_keeps_containers_apart_but_not_from_the_outside(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network(icc=False)
    a, _ = lab.container(network, "a")
    b, endpoint = lab.container(network, "b")
    lab.service(b, 80)
    lab.service(outside, 80, name="out")
    assert refused(a, endpoint.ip, 80)
    assert ask(a, OUTSIDE_ADDRESS, 80).startswith("out")


def test_forged_packets_do_not_reach_the_host(lab: Lab) -> None:
    """The host's loopback by CVE-2020-8558's way, and a source that is not the subnet's; a true one does arrive."""
    network = lab.network()
    inside, endpoint = lab.container(network, "a")
    listener = lab.host.socket(socket.SOCK_DGRAM)
    listener.bind(("0.0.0.0", 5555))
    listener.settimeout(0.3)
    with Channel(NETLINK_ROUTE) as channel:
        bridge = Links(channel).find(network.bridge)
        assert bridge is not None
    with inside, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        for source, target in (
            (endpoint.ip, "127.0.0.1"),
            ("127.0.0.1", endpoint.gateway),
            ("198.51.100.77", endpoint.gateway),
        ):
            raw.send(udp_frame(endpoint.mac, bridge.mac, source, target, 5555))
            with pytest.raises(TimeoutError):
                listener.recv(100)
        raw.send(udp_frame(endpoint.mac, bridge.mac, endpoint.ip, endpoint.gateway, 5555))
        assert listener.recv(100) == b"spoof!"
    listener.close()


def test_no_ipv6_on_a_network_without_it(lab: Lab) -> None:
    network = lab.network()
    a, a_endpoint = lab.container(network, "a")
    b, _ = lab.container(network, "b")
    for name in (network.bridge, a_endpoint.host_interface):
        assert lab.host.sysctl(f"ipv6/conf/{name}/addr_gen_mode") == "1" or name == network.bridge
    assert lab.host.sysctl(f"ipv6/conf/{network.bridge}/disable_ipv6") == "1"
    assert lab.host.sysctl(f"ipv6/conf/{network.bridge}/accept_ra") == "0"
    for namespace in (a, b, lab.host):
        with namespace, open("/proc/thread-self/net/if_inet6") as addresses:
            assert "fe80" not in addresses.read()
    # A router advertisement from one container must not give another a route or an address.
    advertisement = bytes.fromhex("8600000040000708000000000000000003044040ffffffffffffffff00000000" + "fd" + "00" * 15)
    with a:
        a.sysctl("ipv6/conf/eth0/addr_gen_mode", "0")
        a.sysctl("ipv6/conf/eth0/disable_ipv6", "1")
        a.sysctl("ipv6/conf/eth0/disable_ipv6", "0")

        def own() -> bool:
            with a, open("/proc/thread-self/net/if_inet6") as addresses:
                return any(line.startswith("fe80") and line.split()[4] == "80" for line in addresses)  # permanent

        assert eventually(own)
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            raw.sendto(advertisement, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))
    for namespace in (b, lab.host):
        with namespace, open("/proc/thread-self/net/if_inet6") as addresses:
            assert "fd00" not in addresses.read()
        with namespace, open("/proc/thread-self/net/ipv6_route") as routes:
            assert "fd00" not in routes.read()
    for name, value in a_endpoint.sysctls.items():
        a.sysctl(name.removeprefix("net.").replace(".", "/"), value)


def test_addresses_go_round_and_wanted_ones_are_given(lab: Lab) -> None:
    network = lab.network()
    _, first = lab.container(network, "a")
    network.detach(first)
    _, second = lab.container(network, "b")
    assert second.ip != first.ip
    assert network.subnet is not None
    wanted = str(network.subnet[77])
    assert lab.container(network, "c", ip=wanted)[1].ip == wanted
    with pytest.raises(Conflict, match="Address already in use"):
        lab.container(network, "d", ip=wanted)
    for wrong in ("192.0.2.1", str(network.subnet[0]), "x", f"{wanted}\n"):
        with pytest.raises(Invalid):
            lab.container(network, "d", ip=wrong)
    assert set(network.endpoints()) == {"b", "c"}


def test_a_container_attached_again_has_one_endpoint(lab: Lab) -> None:
    network = lab.network()
    lab.container(network, "a")
    again, endpoint = lab.container(network, "a")
    assert network.endpoints() == {"a": endpoint}
    lab.service(again, 80)
    assert ask(lab.host, endpoint.ip, 80)


def test_mtu_is_the_default_routes(lab: Lab) -> None:
    lab.outside()
    lab.lower_lan_mtu(1380)
    _, endpoint = lab.container(lab.network(), "a")
    assert endpoint.mtu == 1380


def test_network_none_has_loopback_only(lab: Lab) -> None:
    alone = Namespace()
    try:
        bring_loopback_up(alone.route_fd)
        lab.service(alone, 80, name="self")
        assert ask(alone, "127.0.0.1", 80) == "self 127.0.0.1"
        assert alone.links() == ["lo"]
    finally:
        alone.close()


def test_fifty_at_once_then_none_left(lab: Lab) -> None:
    network = lab.network()
    network.ensure()
    spaces = [Namespace() for _ in range(50)]
    failures: list[BaseException] = []

    def join(number: int) -> None:
        try:
            network.attach(spaces[number].fd, spaces[number].route_fd, f"c{number}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=join, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    endpoints = list(network.endpoints().values())
    assert len({e.ip for e in endpoints}) == len({e.mac for e in endpoints}) == len(endpoints) == 50
    for endpoint in endpoints:
        network.detach(endpoint)
        network.detach(endpoint)
    assert network.endpoints() == {}
    for space in spaces:
        space.close()
    assert eventually(lambda: set(lab.host.links()) == {"lo", network.bridge}, 10)


def test_a_full_subnet_says_so(lab: Lab) -> None:
    network = lab.network()
    network.ensure()
    assert network.subnet is not None
    pool = network._pools[4]
    for number in range(2, network.subnet.num_addresses - 1):
        pool.reserve(network.subnet[number])
    with pytest.raises(Exhausted, match="no available IPv4 addresses on this network's address pools"):
        lab.container(network, "a")
