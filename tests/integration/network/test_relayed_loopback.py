"""Published ports at [::1], which the kernel cannot redirect: a relay carries them, and only them."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from netlab import HOST_ADDRESS6, OUTSIDE_ADDRESS6, Lab, ask, ask_udp, eventually, open_files, refused

from proa.errors import Conflict, Unsupported
from proa.network import PortRequest, PublishedPort
from proa.relay.sources import CLOSED, SYN_SENT, Sources

pytestmark = pytest.mark.root


def relay_pids(lab: Lab) -> list[int]:
    wanted = f"proa relay\0{lab.tmp_path}"
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "cmdline").read_text(errors="replace"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_one_loopback_port_of_a_network_with_either_family(lab: Lab) -> None:
    for root, ipv6 in (("four", False), ("both", True)):
        relay = lab.relay(root)
        network = lab.network(root, relay=relay, ipv6=ipv6)
        a, endpoint = lab.container(network, "a")
        lab.service(a, 80, name="a", family=socket.AF_INET6 if ipv6 else socket.AF_INET)
        port = 8080 + ipv6
        wanted = [PortRequest(container_port=80, host_ip="::1", host_port=port)]
        assert network.publish(endpoint, wanted) == [
            PublishedPort(container_port=80, protocol="tcp", host_ip="::1", host_port=port)
        ]
        assert ask(lab.host, "::1", port) == f"a {endpoint.gateway6 if ipv6 else endpoint.gateway}"
        assert refused(lab.host, "127.0.0.1", port)
        network.detach(endpoint)
        assert refused(lab.host, "::1", port)
        relay.close()
    assert eventually(lambda: not relay_pids(lab))


def test_ports_of_all_addresses_are_reached_by_the_relay_at_one_of_them_only(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network(relay=lab.relay(), ipv6=True)
    a, endpoint = lab.container(network, "a")
    b, _ = lab.container(network, "b")
    lab.service(a, 80, name="a", family=socket.AF_INET6)
    lab.service(a, 53, kind=socket.SOCK_DGRAM, name="a", family=socket.AF_INET6)
    requests = [PortRequest(container_port=80, host_port=8080), PortRequest(container_port=53, protocol="udp")]
    ports = network.publish(endpoint, requests)
    udp = ports[-1].host_port
    assert [port.host_ip for port in ports] == ["0.0.0.0", "::", "0.0.0.0", "::"]
    # The kernel still does all the rest: sources are kept, containers go by the gateway. A new link takes two seconds
    # to find its neighbours.
    assert ask(outside, HOST_ADDRESS6, 8080, timeout_s=15) == f"a {OUTSIDE_ADDRESS6}"
    for space in (a, b, lab.host):
        assert ask(space, endpoint.gateway6, 8080).startswith("a ")
    assert not relay_pids(lab)
    assert ask(lab.host, "::1", 8080) == f"a {endpoint.gateway6}"
    assert len(relay_pids(lab)) == 1
    with lab.host.socket(socket.SOCK_DGRAM, socket.AF_INET6) as client:
        assert ask_udp(lab.host, "::1", udp, client) == f"a {endpoint.gateway6}"
    assert ask(outside, HOST_ADDRESS6, 8080) == f"a {OUTSIDE_ADDRESS6}"
    # A container's own loopback is not the host's.
    assert refused(b, "::1", 8080)


def test_a_container_that_listens_at_its_other_address_is_found(lab: Lab) -> None:
    """Whoever asks for `localhost` tries ::1 first, and takes its answer for the only one."""
    network = lab.network(relay=lab.relay(), ipv6=True)
    a, endpoint = lab.container(network, "a")
    lab.service(a, 80, name="a")
    network.publish(endpoint, [PortRequest(container_port=80, host_port=8080)])
    assert ask(lab.host, "::1", 8080) == f"a {endpoint.gateway}"
    network.publish(endpoint, [PortRequest(container_port=81, host_port=8081)])
    with pytest.raises(ConnectionResetError):
        ask(lab.host, "::1", 8081)


def test_without_the_rules_only_loopback_gets_in(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network(relay=lab.relay(), ipv6=True)
    a, endpoint = lab.container(network, "a")
    lab.service(a, 80, name="a", family=socket.AF_INET6)
    network.publish(endpoint, [PortRequest(container_port=80, host_port=8080)])
    assert ask(lab.host, "::1", 8080).startswith("a ")
    network.fabric._stop_watching()
    lab.delete_table(network.table)
    assert refused(outside, HOST_ADDRESS6, 8080)
    assert refused(lab.host, HOST_ADDRESS6, 8080)
    assert ask(lab.host, "::1", 8080).startswith("a ")


def test_a_new_engine_goes_on_with_the_relay(lab: Lab) -> None:
    relay = lab.relay()
    network = lab.network(relay=relay, ipv6=True)
    a, endpoint = lab.container(network, "a")
    lab.service(a, 80, name="a", family=socket.AF_INET6)
    network.publish(
        endpoint, [PortRequest(container_port=80, host_ip=ip, host_port=8080) for ip in ("::", "127.0.0.1")]
    )
    assert ask(lab.host, "::1", 8080).startswith("a ")
    (pid,) = relay_pids(lab)
    network.close()
    relay.leave()
    assert ask(lab.host, "::1", 8080).startswith("a ")
    again = lab.network(relay=lab.relay(), ipv6=True)
    again.reconcile(["a"])
    assert again.said() == []
    assert ask(lab.host, "::1", 8080).startswith("a ")
    assert relay_pids(lab) == [pid]
    with pytest.raises(Conflict, match="port is already allocated"):
        again.publish(lab.container(again, "b")[1], [PortRequest(container_port=80, host_ip="::1", host_port=8080)])
    again.reconcile([])
    assert refused(lab.host, "::1", 8080)


def test_a_relay_that_was_killed_is_there_again_for_the_next_client(lab: Lab) -> None:
    network = lab.network(relay=lab.relay())
    a, endpoint = lab.container(network, "a")
    lab.service(a, 80, name="a")
    network.publish(endpoint, [PortRequest(container_port=80, host_ip="::1", host_port=8080)])
    assert ask(lab.host, "::1", 8080).startswith("a ")
    (pid,) = relay_pids(lab)
    os.kill(pid, signal.SIGKILL)
    assert ask(lab.host, "::1", 8080).startswith("a ")
    assert relay_pids(lab) != [pid]


def test_what_cannot_be_relayed_is_refused_and_nothing_stays_open(lab: Lab) -> None:
    before = open_files()
    relay = lab.relay()
    network = lab.network(relay=relay)
    _, endpoint = lab.container(network, "a")
    with pytest.raises(Unsupported, match="tcp and udp only"):
        network.publish(endpoint, [PortRequest(container_port=80, protocol="sctp", host_ip="::1", host_port=8080)])
    taken = lab.host.socket(family=socket.AF_INET6)
    taken.bind(("::1", 8080))
    taken.listen()
    with pytest.raises(Conflict, match=r"\[::1\]:8080.*address already in use"):
        network.publish(endpoint, [PortRequest(container_port=80, host_ip="::1", host_port=8080)])
    taken.close()
    network.publish(endpoint, [PortRequest(container_port=80, host_ip="::1", host_port=8080)])
    network.detach(endpoint)
    network.destroy()
    relay.close()
    assert eventually(lambda: not relay_pids(lab))
    assert eventually(lambda: len(open_files()) <= len(before) + 4), open_files() - before


def test_a_container_that_remembers_earlier_connections_is_asked_from_other_ports(lab: Lab) -> None:
    """In TIME_WAIT it refuses what seems older; the kernel alone would ask again after some 10 ms."""
    network = lab.network()
    a, endpoint = lab.container(network, "a")
    lab.service(a, 80, name="a")
    client, target = str(endpoint.gateway), (str(endpoint.ip), 80)
    ports = range(50000, 50032)
    for port in ports:
        with lab.host.socket() as earlier:
            earlier.bind((client, port))
            earlier.connect(target)
            while earlier.recv(100):
                pass
    # Without the random part the timestamps of every second port, about, are earlier ones now.
    lab.host.sysctl("ipv4/tcp_timestamps", "2")
    sources = Sources()
    sources.keep(0, [4], [])
    others = 0
    for port in ports:
        with lab.host:
            made, state = sources.stream(target, (client, port))
        with made:
            assert state not in {SYN_SENT, CLOSED}
            assert made.getsockname()[0] == client
            others += made.getsockname()[1] != port
    assert 0 < others < len(ports)
