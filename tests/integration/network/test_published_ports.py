"""Published ports from everywhere a client may be: the outside, the host's own addresses, other containers, itself."""

from __future__ import annotations

import errno
import socket

import pytest
from netlab import HOST_ADDRESS, OUTSIDE_ADDRESS, Lab, ask, ask_udp, eventually, refused

from proa.errors import Conflict, Invalid, Unsupported
from proa.network import PortRequest, PublishedPort

pytestmark = pytest.mark.root


def test_tcp_port_from_everywhere(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network()
    a, endpoint = lab.container(network, "a")
    b, _ = lab.container(network, "b")
    lab.service(a, 80, name="a")
    ports = network.publish(endpoint, [PortRequest(container_port=80, host_port=8080)])
    assert ports == [PublishedPort(container_port=80, protocol="tcp", host_ip="0.0.0.0", host_port=8080)]
    assert ask(outside, HOST_ADDRESS, 8080) == f"a {OUTSIDE_ADDRESS}"
    for address in ("127.0.0.1", "127.1.2.3", HOST_ADDRESS, endpoint.gateway):
        assert ask(lab.host, address, 8080).startswith("a ")
        if not address.startswith("127"):
            assert ask(b, address, 8080).startswith("a ")
            assert ask(a, address, 8080).startswith("a ")
    assert ask(lab.host, endpoint.ip, 80).startswith("a ")
    assert network.endpoints()["a"].ports == tuple(ports)


def test_port_of_one_engine_from_a_container_of_another(lab: Lab) -> None:
    one, two = lab.network("one"), lab.network("two")
    a, endpoint = lab.container(one, "a")
    b, b_endpoint = lab.container(two, "b")
    lab.service(a, 80, name="a")
    one.publish(endpoint, [PortRequest(container_port=80, host_port=8080)])
    assert ask(b, b_endpoint.gateway, 8080).startswith("a ")


def test_udp_port_answers_from_where_it_was_asked(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network()
    a, endpoint = lab.container(network, "a")
    b, _ = lab.container(network, "b")
    lab.service(a, 53, kind=socket.SOCK_DGRAM, name="a")
    network.publish(endpoint, [PortRequest(container_port=53, protocol="udp", host_port=5353)])
    assert ask_udp(outside, HOST_ADDRESS, 5353) == f"a {OUTSIDE_ADDRESS}"
    assert ask_udp(lab.host, "127.0.0.1", 5353).startswith("a ")
    assert ask_udp(lab.host, HOST_ADDRESS, 5353).startswith("a ")
    assert ask_udp(b, endpoint.gateway, 5353).startswith("a ")


def test_a_udp_client_that_was_there_first_is_redirected_too(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network()
    a, endpoint = lab.container(network, "a")
    lab.service(a, 53, kind=socket.SOCK_DGRAM, name="a")
    early = lab.host.socket(socket.SOCK_DGRAM)
    early.bind(("0.0.0.0", 5353))
    with outside.socket(socket.SOCK_DGRAM) as client:
        client.settimeout(0.1)
        client.sendto(b"?", (HOST_ADDRESS, 5353))
        assert early.recv(10) == b"?"
        early.close()
        network.publish(endpoint, [PortRequest(container_port=53, protocol="udp", host_port=5353)])

        def answered() -> bool:
            try:
                return ask_udp(outside, HOST_ADDRESS, 5353, client).startswith("a ")
            except OSError:
                return False

        assert eventually(answered)


def test_one_address_only(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network()
    a, endpoint = lab.container(network, "a")
    b, _ = lab.container(network, "b")
    lab.service(a, 80, name="a")
    network.publish(endpoint, [PortRequest(container_port=80, host_ip="127.0.0.1", host_port=8080)])
    network.publish(endpoint, [PortRequest(container_port=80, host_ip=HOST_ADDRESS, host_port=8081)])
    assert ask(lab.host, "127.0.0.1", 8080).startswith("a ")
    assert refused(outside, HOST_ADDRESS, 8080)
    assert refused(b, endpoint.gateway, 8080)
    assert ask(outside, HOST_ADDRESS, 8081).startswith("a ")
    assert refused(lab.host, "127.0.0.1", 8081)


def test_the_default_address_is_configuration(lab: Lab) -> None:
    network = lab.network(publish_address="127.0.0.1")
    _, endpoint = lab.container(network, "a")
    assert network.publish(endpoint, [PortRequest(container_port=80)])[0].host_ip == "127.0.0.1"


def test_random_and_ranged_ports(lab: Lab) -> None:
    network = lab.network()
    _, endpoint = lab.container(network, "a")
    first, second = network.publish(endpoint, [PortRequest(container_port=80), PortRequest(container_port=81)])
    assert 1024 < first.host_port != second.host_port > 1024
    ranged = PortRequest(container_port=82, host_port=9000, host_port_end=9002)
    found = [network.publish(endpoint, [ranged])[0].host_port for _ in range(3)]
    assert found == [9000, 9001, 9002]
    with pytest.raises(Conflict, match="port is already allocated"):
        network.publish(endpoint, [ranged])


def test_conflicts_have_dockers_words_and_leave_nothing(lab: Lab) -> None:
    network = lab.network()
    _, a = lab.container(network, "a" * 64)
    _, b = lab.container(network, "b" * 64)
    network.publish(a, [PortRequest(container_port=80, host_port=8080)])
    with pytest.raises(Conflict) as raised:
        network.publish(
            b,
            [PortRequest(container_port=80, host_port=8081), PortRequest(container_port=80, host_port=8080)],
            name="web",
        )
    assert str(raised.value) == (
        f"driver failed programming external connectivity on endpoint web ({'b' * 64}): "
        "Bind for 0.0.0.0:8080 failed: port is already allocated"
    )
    assert raised.value.code == "port-allocated"
    assert network.endpoints()["b" * 64].ports == ()
    network.publish(a, [PortRequest(container_port=80, host_port=8081)])
    with pytest.raises(Conflict, match=r"Bind for 127\.0\.0\.1:8080 failed: port is already allocated"):
        network.publish(b, [PortRequest(container_port=80, host_ip="127.0.0.1", host_port=8080)])
    with lab.host.socket() as foreign:
        foreign.bind(("0.0.0.0", 8082))
        foreign.listen()
        with pytest.raises(Conflict, match=r"0\.0\.0\.0:8082.*address already in use"):
            network.publish(b, [PortRequest(container_port=80, host_port=8082)])
    with pytest.raises(Invalid, match="cannot assign requested address"):
        network.publish(b, [PortRequest(container_port=80, host_ip="192.0.2.99", host_port=8083)])
    with pytest.raises(Unsupported, match="no IPv6"):
        network.publish(b, [PortRequest(container_port=80, host_ip="::1", host_port=8083)])
    with pytest.raises(Invalid):
        network.publish(b, [PortRequest(container_port=80, host_ip="localhost", host_port=8083)])


@pytest.mark.parametrize("reuse", [0, 1])
def test_a_published_port_cannot_be_taken_by_another_program(lab: Lab, reuse: int) -> None:
    network = lab.network()
    _, endpoint = lab.container(network, "a")
    network.publish(
        endpoint,
        [
            PortRequest(container_port=80, host_port=8080),
            PortRequest(container_port=80, protocol="udp", host_port=8080),
        ],
    )
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for address in ("0.0.0.0", "127.0.0.1"):
            with lab.host.socket(kind) as thief:
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                with pytest.raises(OSError) as raised:
                    thief.bind((address, 8080))
                assert raised.value.errno == errno.EADDRINUSE
    network.unpublish(endpoint)
    with lab.host.socket() as user:
        user.bind(("0.0.0.0", 8080))


def test_unpublish_some_then_all(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network()
    a, endpoint = lab.container(network, "a")
    lab.service(a, 80, name="a")
    first, second = network.publish(
        endpoint,
        [PortRequest(container_port=80, host_port=8080), PortRequest(container_port=80, host_port=8081)],
    )
    network.unpublish(endpoint, [first])
    assert refused(outside, HOST_ADDRESS, 8080)
    assert ask(outside, HOST_ADDRESS, 8081).startswith("a ")
    assert network.endpoints()["a"].ports == (second,)
    network.unpublish(endpoint)
    network.unpublish(endpoint)
    assert refused(outside, HOST_ADDRESS, 8081)
    assert network.endpoints()["a"].ports == ()


def test_publishing_the_same_again_changes_nothing(lab: Lab) -> None:
    network = lab.network()
    _, endpoint = lab.container(network, "a")
    request = PortRequest(container_port=80, host_port=8080)
    assert network.publish(endpoint, [request]) == network.publish(endpoint, [request])
    assert len(network.endpoints()["a"].ports) == 1


def test_sctp_enters_the_map_and_conflicts_with_itself(lab: Lab) -> None:
    network = lab.network()
    _, a = lab.container(network, "a")
    _, b = lab.container(network, "b")
    request = PortRequest(container_port=80, protocol="sctp", host_port=8080)
    network.publish(a, [request])
    network.publish(b, [PortRequest(container_port=80, host_port=8080)])
    with pytest.raises(Conflict, match="port is already allocated"):
        network.publish(b, [request])


def test_a_new_container_at_a_port_gets_the_old_clients(lab: Lab) -> None:
    """A client that reuses its source port after a restart must not be sent to the container that is gone."""
    outside = lab.outside()
    network = lab.network()
    for name in ("first", "second"):
        inside, endpoint = lab.container(network, name)
        lab.service(inside, 53, kind=socket.SOCK_DGRAM, name=name)
        network.publish(endpoint, [PortRequest(container_port=53, protocol="udp", host_port=5353)])
        with outside.socket(socket.SOCK_DGRAM) as client:
            client.settimeout(0.1)
            client.bind((OUTSIDE_ADDRESS, 40000))

            def answered(client: socket.socket = client, name: str = name) -> bool:
                try:
                    return ask_udp(outside, HOST_ADDRESS, 5353, client).startswith(name)
                except OSError:
                    return False

            assert eventually(answered)
        network.detach(endpoint)
