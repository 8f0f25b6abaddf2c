"""Networks are strangers to one another: what a container with every privilege over its own interface can try."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface

import pytest
from netlab import (
    HOST_ADDRESS,
    HOST_ADDRESS6,
    OUTSIDE_ADDRESS,
    OUTSIDE_ADDRESS6,
    Lab,
    LabNetwork,
    Namespace,
    ask,
    refused,
    udp_frame,
)

from proa.network import Endpoint, PortRequest
from proa.network.links import Links
from proa.network.netlink import NETLINK_ROUTE, Channel

pytestmark = pytest.mark.root


class Scene:
    """Container a on network one, b and c on network two of the same engine; b has services."""

    def __init__(self, lab: Lab, **second: object) -> None:
        self.lab = lab
        self.one = lab.network(key="one", ipv6=True)
        self.two = lab.network(key="two", ipv6=True, fabric=self.one.fabric, **second)
        self.a, self.a_endpoint = lab.container(self.one, "a")
        self.b, self.b_endpoint = lab.container(self.two, "b")
        self.c, self.c_endpoint = lab.container(self.two, "c")
        lab.service(self.b, 80, name="b", family=socket.AF_INET6)  # takes IPv4, too
        self.ear = lab.ear(self.b, 5555)

    def hears_nothing(self) -> bool:
        try:
            self.ear.recv(100)
        except TimeoutError:
            return True
        return False


def _bridge_mac(network: LabNetwork) -> str:
    with Channel(NETLINK_ROUTE) as channel:
        link = Links(channel).find(network.bridge)
        assert link is not None
        return link.mac


def _send(space: Namespace, frame: bytes) -> None:
    with space, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(frame)


def test_the_scene_works(lab: Lab) -> None:
    scene = Scene(lab)
    assert ask(scene.c, scene.b_endpoint.ip, 80).startswith("b ")
    assert ask(scene.c, scene.b_endpoint.ip6, 80).startswith("b ")
    own = udp_frame(scene.c_endpoint.mac, scene.b_endpoint.mac, scene.c_endpoint.ip, scene.b_endpoint.ip, 5555)
    _send(scene.c, own)
    assert scene.ear.recv(100) == b"spoof!"


def test_direct_connections(lab: Lab) -> None:
    scene = Scene(lab)
    for address in (scene.b_endpoint.ip, scene.b_endpoint.ip6):
        assert refused(scene.a, address, 80)
        assert ask(lab.host, address, 80).startswith("b ")


def test_frames_made_by_hand(lab: Lab) -> None:
    """By the gateway's MAC with the true source, with a neighbour's of the target, with the target's own; and to its
    MAC directly, which is on another wire."""
    scene = Scene(lab)
    gateway = _bridge_mac(scene.one)
    for source in (
        scene.a_endpoint.ip,
        scene.c_endpoint.ip,
        scene.b_endpoint.ip,
        scene.b_endpoint.gateway,
        HOST_ADDRESS,
    ):
        for mac in (gateway, _bridge_mac(scene.two), scene.b_endpoint.mac, "ff:ff:ff:ff:ff:ff"):
            _send(scene.a, udp_frame(scene.a_endpoint.mac, mac, source, scene.b_endpoint.ip, 5555))
    assert scene.hears_nothing()


def test_an_address_of_the_other_network(lab: Lab) -> None:
    scene = Scene(lab)
    four, six = scene.two.subnets()
    with Channel(NETLINK_ROUTE, fd=scene.a.route_fd) as channel:
        links = Links(channel)
        eth0 = links.find("eth0")
        assert eth0 is not None
        links.add_address(eth0.number, IPv4Interface((int(four.network_address) + 200, four.prefixlen)), "eth0")
        links.add_address(eth0.number, IPv6Interface((int(six.network_address) + 200, six.prefixlen)), "eth0")
    for address in (scene.b_endpoint.ip, scene.b_endpoint.ip6, scene.b_endpoint.gateway):
        assert refused(scene.a, address, 80)


def _arp(space: Namespace, endpoint: Endpoint, target: str) -> bool:
    """Whether anybody on the wire answers for an address."""
    own = bytes.fromhex(endpoint.mac.replace(":", ""))
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + IPv4Address(endpoint.ip).packed
    frame = b"\xff" * 6 + own + b"\x08\x06" + body + bytes(6) + IPv4Address(target).packed
    with space, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as raw:
        raw.bind(("eth0", 0x0806))
        raw.settimeout(0.3)
        raw.send(frame)
        try:
            while True:
                answer = raw.recv(100)
                if answer[20:22] == b"\0\2" and answer[28:32] == IPv4Address(target).packed:
                    return True
        except TimeoutError:
            return False


def test_arp_tells_of_the_own_network_only(lab: Lab) -> None:
    lab.outside()
    scene = Scene(lab)
    assert _arp(scene.a, scene.a_endpoint, scene.a_endpoint.gateway)
    for target in (scene.b_endpoint.ip, scene.b_endpoint.gateway, HOST_ADDRESS, "127.0.0.1"):
        assert not _arp(scene.a, scene.a_endpoint, target)


def test_published_ports_are_reached_by_the_hosts_addresses(lab: Lab) -> None:
    lab.outside()
    scene = Scene(lab)
    scene.two.publish(scene.b_endpoint, [PortRequest(container_port=80, host_port=8080)])
    for address in (HOST_ADDRESS, HOST_ADDRESS6, scene.a_endpoint.gateway):
        assert ask(scene.a, address, 8080).startswith("b ")
    assert refused(scene.a, scene.b_endpoint.ip, 80)


def test_direct_routing_from_outside(lab: Lab) -> None:
    """The other host has a route to the subnet by ours, and sends with its own or a container's address."""
    outside = lab.outside()
    scene = Scene(lab)
    scene.two.publish(scene.b_endpoint, [PortRequest(container_port=80, host_port=8080)])
    assert ask(outside, HOST_ADDRESS, 8080) == f"b ::ffff:{OUTSIDE_ADDRESS}"
    assert ask(outside, HOST_ADDRESS6, 8080) == f"b {OUTSIDE_ADDRESS6}"
    for address in (scene.b_endpoint.ip, scene.b_endpoint.ip6):
        assert refused(outside, address, 80)
    with Channel(NETLINK_ROUTE) as channel:
        lan = Links(channel).find("lan0")
        assert lan is not None
    with Channel(NETLINK_ROUTE, fd=outside.route_fd) as channel:
        far = Links(channel).find("eth0")
        assert far is not None
    for source in (OUTSIDE_ADDRESS, scene.c_endpoint.ip, scene.b_endpoint.gateway):
        _send(outside, udp_frame(far.mac, lan.mac, source, scene.b_endpoint.ip, 5555))
    assert scene.hears_nothing()


def test_an_internal_network(lab: Lab) -> None:
    outside = lab.outside()
    lab.service(outside, 80, name="out")
    scene = Scene(lab, internal=True)
    assert scene.b_endpoint.gateway == ""
    assert ask(scene.c, scene.b_endpoint.ip, 80).startswith("b ")
    assert ask(scene.c, scene.b_endpoint.ip6, 80).startswith("b ")
    gateway = str(scene.two.subnets()[0][1])
    ear = lab.ear(outside, 5555)
    mac = _bridge_mac(scene.two)
    for source in (scene.c_endpoint.ip, scene.a_endpoint.ip, HOST_ADDRESS):
        for target in (OUTSIDE_ADDRESS, HOST_ADDRESS, scene.a_endpoint.ip):
            _send(scene.c, udp_frame(scene.c_endpoint.mac, mac, source, target, 5555))
    with pytest.raises(TimeoutError):
        ear.recv(100)
    # With a route of its own making, too.
    with Channel(NETLINK_ROUTE, fd=scene.c.route_fd) as channel:
        links = Links(channel)
        eth0 = links.find("eth0")
        assert eth0 is not None
        links.set_default_route(eth0.number, IPv4Address(gateway))
    scene.one.publish(scene.a_endpoint, [PortRequest(container_port=80, host_port=8081)])
    lab.service(scene.a, 80, name="a")
    assert ask(lab.host, "127.0.0.1", 8081).startswith("a ")
    for address, port in ((OUTSIDE_ADDRESS, 80), (HOST_ADDRESS, 8081), (scene.a_endpoint.ip, 80)):
        assert refused(scene.c, address, port)
    for space in (outside, scene.a):
        assert refused(space, scene.b_endpoint.ip, 80)


def test_router_advertisements_of_a_container(lab: Lab) -> None:
    scene = Scene(lab)
    advertisement = bytes.fromhex("8600000040000708000000000000000003044040ffffffffffffffff00000000" + "fd" + "00" * 15)
    with scene.c, socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        for _ in range(3):
            raw.sendto(advertisement, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))
    for space in (scene.b, lab.host):
        with space, open("/proc/thread-self/net/ipv6_route") as routes:
            assert "fd000000000000000000000000000000 40" not in routes.read()


def test_routes_and_rules_go_with_the_network(lab: Lab) -> None:
    scene = Scene(lab)
    names = [scene.one.bridge, scene.two.bridge]
    for network, endpoint in ((scene.two, scene.b_endpoint), (scene.two, scene.c_endpoint)):
        network.detach(endpoint)
    scene.two.destroy()
    with Channel(NETLINK_ROUTE) as channel:
        links = Links(channel)
        assert links.find(names[1]) is None
        assert not any(net in scene.two.subnets() for _, net in links.routes())
    assert lab.tables() != []
    scene.one.detach(scene.a_endpoint)
    scene.one.destroy()
    assert lab.tables() == []
