"""An engine that ends with nothing running leaves the host as it was, and others as they are."""

from __future__ import annotations

import os
import threading

import pytest
from netlab import Lab, Namespace, eventually, open_files

from proa.errors import Conflict
from proa.network import PortRequest

pytestmark = pytest.mark.root


def test_destroy_leaves_nothing(lab: Lab) -> None:
    assert lab.host.sysctl("ipv4/ip_forward") == "0"
    before = open_files()
    threads = threading.active_count()
    network = lab.network()
    inside, endpoint = lab.container(network, "a")
    network.publish(endpoint, [PortRequest(container_port=80, host_port=8080)])
    assert lab.host.sysctl("ipv4/ip_forward") == "1"
    with pytest.raises(Conflict, match="network bridge has active endpoints"):
        network.destroy()
    network.detach(endpoint)
    inside.close()
    network.destroy()
    network.destroy()
    assert lab.host.links() == ["lo"]
    assert lab.tables() == []
    assert lab.host.sysctl("ipv4/ip_forward") == "0"
    assert not (lab.tmp_path / "engine" / "run" / "network" / "bridge").exists()
    assert eventually(lambda: threading.active_count() == threads)
    assert eventually(lambda: open_files() == before), open_files() ^ before


def test_a_network_works_again_after_destroy(lab: Lab) -> None:
    network = lab.network()
    network.ensure()
    subnet = network.subnet
    network.destroy()
    lab.container(network, "a")
    assert network.subnet == subnet


def test_forwarding_stays_until_the_last_engine_leaves(lab: Lab) -> None:
    one, two = lab.network("one"), lab.network("two")
    one.ensure()
    two.ensure()
    one.destroy()
    assert lab.host.sysctl("ipv4/ip_forward") == "1"
    two.destroy()
    assert lab.host.sysctl("ipv4/ip_forward") == "0"
    assert lab.tables() == []


def test_forwarding_that_was_on_or_that_others_need_stays_on(lab: Lab) -> None:
    lab.host.sysctl("ipv4/ip_forward", "1")
    network = lab.network()
    network.ensure()
    network.destroy()
    assert lab.host.sysctl("ipv4/ip_forward") == "1"
    lab.host.sysctl("ipv4/ip_forward", "0")
    network.ensure()
    lab.outside()  # somebody else's bridge
    network.destroy()
    assert lab.host.sysctl("ipv4/ip_forward") == "1"


def test_fifty_containers_come_and_go(lab: Lab) -> None:
    network = lab.network()
    network.ensure()
    files = open_files()
    for number in range(50):
        space = Namespace()
        endpoint = network.attach(space.fd, space.route_fd, f"c{number}")
        network.publish(endpoint, [PortRequest(container_port=80, host_port=8080)])
        network.detach(endpoint)
        space.close()
    assert eventually(lambda: open_files() == files), open_files() ^ files
    assert eventually(lambda: set(lab.host.links()) == {"lo", network.bridge}, 10)
    assert os.listdir(lab.tmp_path / "engine" / "run" / "network" / "bridge") == []
