"""macvlan networks: containers on the host's LAN, with addresses of the LAN."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address

import pytest
from netlab import HOST_ADDRESS, OUTSIDE_ADDRESS, Lab, Namespace, ask, refused

from proa.errors import Conflict, Invalid, NotFound, Unsupported
from proa.network import AttachRequest, NetworkSpec, PortRequest, SubnetSpec
from proa.network.links import Links
from proa.network.netlink import NETLINK_ROUTE, Channel
from proa.network.slave import SlaveNetwork

pytestmark = pytest.mark.root


def _network(lab: Lab, kind: str = "macvlan", parent: str = "lan0", **options: str) -> SlaveNetwork:
    lan = SubnetSpec(subnet="198.51.100.0/24", gateway=HOST_ADDRESS, ip_range="198.51.100.128/25")
    spec = NetworkSpec(key="lan", name="lan", subnets=(lan,))
    return SlaveNetwork(lab.fabric(), spec, kind, {"parent": parent, **options})


def test_containers_on_the_lan(lab: Lab) -> None:
    outside = lab.outside()
    network = _network(lab)
    network.ensure(new=True)
    a, b = Namespace(), Namespace()
    try:
        first = network.attach(a.fd, a.route_fd, "a", AttachRequest(ip="198.51.100.200", mac="02:00:00:00:00:aa"))
        second = network.attach(b.fd, b.route_fd, "b")
        assert (first.ip, first.mac, first.gateway) == ("198.51.100.200", "02:00:00:00:00:aa", HOST_ADDRESS)
        assert IPv4Address(second.ip) >= IPv4Address("198.51.100.128")
        lab.service(a, 80, name="a")
        lab.service(outside, 80, name="out")
        assert ask(b, first.ip, 80) == f"a {second.ip}"
        assert ask(outside, first.ip, 80) == f"a {OUTSIDE_ADDRESS}"
        assert ask(a, OUTSIDE_ADDRESS, 80) == f"out {first.ip}"
        assert refused(lab.host, first.ip, 80)  # how macvlan works
        with pytest.raises(Conflict, match="Address already in use"):
            network.attach(b.fd, b.route_fd, "c", AttachRequest(interface="eth1", ip=first.ip))
        with pytest.raises(Conflict, match="active endpoints"):
            network.destroy()
        # Another engine finds them, and lets go of those that ended.
        again = _network(lab)
        assert set(again.endpoints()) == {"a", "b"}
        again.reconcile(["a"])
        assert set(again.endpoints()) == {"a"}
        again.detach(again.endpoints()["a"], a.route_fd)
        assert a.links() == ["lo"]
        again.destroy()
        again.destroy()
    finally:
        a.close()
        b.close()


def test_what_a_kernel_or_a_host_lacks_is_said(lab: Lab) -> None:
    lab.outside()
    with pytest.raises(NotFound, match="the host has no link nosuch0"):
        _network(lab, parent="nosuch0").ensure(new=True)
    with pytest.raises(Invalid, match="needs the host's link"):
        _network(lab, parent="").ensure(new=True)
    with pytest.raises(Invalid, match="macvlan_mode"):
        _network(lab, macvlan_mode="open").ensure(new=True)
    try:
        _network(lab, kind="ipvlan").ensure(new=True)
    except Unsupported as error:
        assert "no ipvlan links" in error.message
    assert set(lab.host.links()) == {"lo", "lan0", "far0"}


def test_a_published_sctp_port(lab: Lab) -> None:
    """An INIT chunk made by hand, as kernels with sctp sockets are rare, arrives at the container's port."""
    outside = lab.outside()
    network = lab.network()
    a, endpoint = lab.container(network, "a")
    network.publish(endpoint, [PortRequest(container_port=3868, protocol="sctp", host_port=13868)])
    init = struct.pack("!BBHIIHHI", 1, 0, 20, 7, 65535, 10, 10, 1)
    packet = struct.pack("!HHII", 5000, 13868, 0, 0) + init
    packet = packet[:8] + struct.pack("<I", _crc32c(packet)) + packet[12:]
    with a:
        heard = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
    with outside:
        sending = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
    with heard, sending:
        heard.settimeout(3)
        sending.sendto(packet, (HOST_ADDRESS, 0))
        data, source = heard.recvfrom(200)
        assert source[0] == OUTSIDE_ADDRESS
        assert struct.unpack_from("!HH", data, 20) == (5000, 3868)


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def test_the_lan_is_as_before(lab: Lab) -> None:
    lab.outside()
    with Channel(NETLINK_ROUTE) as channel:
        before = Links(channel).addresses()
    network = _network(lab)
    network.ensure(new=True)
    network.destroy()
    with Channel(NETLINK_ROUTE) as channel:
        assert Links(channel).addresses() == before
    assert lab.tables() == []
