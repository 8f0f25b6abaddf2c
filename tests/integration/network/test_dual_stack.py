"""Networks with IPv6: unique local subnets, ports on both families, sources kept."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, IPv6Network

import pytest
from netlab import HOST_ADDRESS, HOST_ADDRESS6, OUTSIDE_ADDRESS, OUTSIDE_ADDRESS6, Lab, ask, refused

from proa.errors import Conflict
from proa.network import PortRequest, SubnetSpec

pytestmark = pytest.mark.root
V6 = {"family": socket.AF_INET6}


def test_containers_reach_one_another_and_the_outside(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network(ipv6=True)
    a, a_endpoint = lab.container(network, "a")
    b, endpoint = lab.container(network, "b")
    lab.service(b, 80, name="b", **V6)
    lab.service(outside, 80, name="out", **V6)
    _, six = network.subnets()
    assert six.prefixlen == 64
    assert six.subnet_of(IPv6Network("fd00::/8"))
    assert IPv6Address(endpoint.ip6) in six
    assert endpoint.gateway6 == str(six[1])
    assert ask(a, endpoint.ip6, 80) == f"b {a_endpoint.ip6}"
    assert ask(a, OUTSIDE_ADDRESS6, 80) == f"out {HOST_ADDRESS6}"
    assert ask(lab.host, endpoint.ip6, 80).startswith("b ")
    assert refused(outside, endpoint.ip6, 80)


def test_a_port_is_published_on_both_families_with_one_number(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network(ipv6=True)
    a, endpoint = lab.container(network, "a")
    b, _ = lab.container(network, "b")
    lab.service(a, 80, name="a")
    lab.service(a, 81, name="six", **V6)
    bound = network.publish(endpoint, [PortRequest(container_port=81), PortRequest(container_port=80, host_port=8080)])
    assert [(port.host_ip, port.container_port) for port in bound] == [
        ("0.0.0.0", 81),
        ("::", 81),
        ("0.0.0.0", 80),
        ("::", 80),
    ]
    assert bound[0].host_port == bound[1].host_port
    assert ask(outside, HOST_ADDRESS, 8080) == f"a {OUTSIDE_ADDRESS}"
    number = bound[0].host_port
    assert ask(outside, HOST_ADDRESS6, number) == f"six {OUTSIDE_ADDRESS6}"
    for address in (HOST_ADDRESS6, endpoint.gateway6):
        assert ask(lab.host, address, number).startswith("six ")
        assert ask(b, address, number).startswith("six ")
        assert ask(a, address, number).startswith("six ")
    with pytest.raises(ConnectionRefusedError):  # at once, so that clients of "localhost" go on to 127.0.0.1
        ask(lab.host, "::1", 8080)
    network.publish(endpoint, [PortRequest(container_port=80, protocol="udp", host_port=8080)])
    with lab.host.socket(socket.SOCK_DGRAM, socket.AF_INET6) as client:
        client.connect(("::1", 8080))
        with pytest.raises((ConnectionRefusedError, PermissionError)):
            client.send(b"?")
    network.unpublish(endpoint, bound[:2])
    assert refused(outside, HOST_ADDRESS6, number)


def test_one_address_of_ipv6(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network(ipv6=True)
    a, endpoint = lab.container(network, "a")
    lab.service(a, 80, name="a", **V6)
    network.publish(endpoint, [PortRequest(container_port=80, host_ip=HOST_ADDRESS6, host_port=8080)])
    assert ask(outside, HOST_ADDRESS6, 8080) == f"a {OUTSIDE_ADDRESS6}"
    with pytest.raises(Conflict, match=r"Bind for \[::\]:8080 failed: port is already allocated"):
        network.publish(endpoint, [PortRequest(container_port=80, host_ip="::", host_port=8080)])
    network.publish(endpoint, [PortRequest(container_port=80, host_ip="0.0.0.0", host_port=8080)])


def test_only_ipv6(lab: Lab) -> None:
    network = lab.network(ipv4=False, ipv6=True, subnets=(SubnetSpec(subnet="fd12:3456::/64", gateway="fd12:3456::9"),))
    a, endpoint = lab.container(network, "a")
    b, _ = lab.container(network, "b")
    lab.service(a, 80, name="a", **V6)
    assert (endpoint.ip, endpoint.gateway6, endpoint.prefix6) == ("", "fd12:3456::9", 64)
    assert ask(b, endpoint.ip6, 80).startswith("a ")
    assert ask(lab.host, endpoint.ip6, 80) == "a fd12:3456::9"


def test_listening_to_routers_goes_on_and_forwarding_ends(lab: Lab) -> None:
    lab.outside()
    lab.host.sysctl("ipv6/conf/all/forwarding", "0")
    lab.host.sysctl("ipv6/conf/default/accept_ra", "1")
    lab.host.sysctl("ipv6/conf/lan0/accept_ra", "1")
    network = lab.network(ipv6=True)
    network.ensure()
    assert lab.host.sysctl("ipv6/conf/all/forwarding") == "1"
    assert lab.host.sysctl("ipv6/conf/lan0/accept_ra") == "2"
    lab.host.sysctl("ipv6/conf/lo/accept_ra", "2")
    lab.outside_gone()
    network.destroy()
    assert lab.tables() == []
    assert lab.host.sysctl("ipv6/conf/all/forwarding") == "0"
    assert lab.host.sysctl("ipv6/conf/default/accept_ra") == "1"
    assert lab.host.sysctl("ipv6/conf/lo/accept_ra") == "2"
