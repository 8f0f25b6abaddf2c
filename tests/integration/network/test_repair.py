"""What others tear down and what crashes leave: an engine makes it right again."""

from __future__ import annotations

import os

import pytest
from netlab import HOST_ADDRESS, Lab, LabNetwork, Namespace, ask, eventually, refused

from proa.errors import Conflict
from proa.network import Endpoint, PortRequest
from proa.network.links import Links, VethPair
from proa.network.netlink import NETLINK_ROUTE, Channel
from proa.network.nft import INET

pytestmark = pytest.mark.root


def _published(lab: Lab, network: LabNetwork) -> tuple[Namespace, Endpoint]:
    inside, endpoint = lab.container(network, "a")
    lab.service(inside, 80, name="a")
    network.publish(endpoint, [PortRequest(container_port=80, host_port=8080)])
    return inside, endpoint


def test_flushed_rules_come_back_by_themselves(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network()
    _published(lab, network)
    lab.delete_table(network.table)
    assert refused(outside, HOST_ADDRESS, 8080)
    assert eventually(lambda: network.table in lab.tables(INET))
    assert ask(outside, HOST_ADDRESS, 8080).startswith("a ")


def test_publish_and_detach_on_flushed_rules(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network()
    _, endpoint = _published(lab, network)
    lab.delete_table(network.table)
    network.publish(endpoint, [PortRequest(container_port=80, host_port=8081)])
    assert ask(outside, HOST_ADDRESS, 8080).startswith("a ")
    assert ask(outside, HOST_ADDRESS, 8081).startswith("a ")
    lab.delete_table(network.table)
    network.detach(endpoint)
    assert network.endpoints() == {}


def test_a_deleted_bridge_is_made_again_with_its_containers(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network()
    _published(lab, network)
    with Channel(NETLINK_ROUTE) as channel:
        Links(channel).delete(network.bridge)
    assert network.settle(["a"]) == []
    assert ask(outside, HOST_ADDRESS, 8080).startswith("a ")
    with Channel(NETLINK_ROUTE) as channel:
        Links(channel).delete(network.bridge)
    other, endpoint = lab.container(network, "b")
    lab.service(other, 80, name="b")
    assert ask(lab.host, endpoint.ip, 80).startswith("b ")
    assert ask(outside, HOST_ADDRESS, 8080).startswith("a ")


def test_a_new_engine_adopts_what_the_old_one_left(lab: Lab) -> None:
    outside = lab.outside()
    old = lab.network()
    _, endpoint = _published(lab, old)
    dead_inside, dead = lab.container(old, "dead")
    old.publish(dead, [PortRequest(container_port=80, host_port=8081)])
    old.close()
    assert ask(outside, HOST_ADDRESS, 8080).startswith("a ")

    new = lab.network()
    assert set(new.endpoints()) == {"a", "dead"}
    assert new.settle(["a"]) == []
    assert ask(outside, HOST_ADDRESS, 8080).startswith("a ")
    assert new.endpoints()["a"].ip == endpoint.ip
    assert new.subnet == old.subnet
    assert eventually(lambda: dead_inside.links() == ["lo"])
    _, other = lab.container(new, "b")
    assert other.ip != endpoint.ip
    with pytest.raises(Conflict, match="port is already allocated"):
        new.publish(other, [PortRequest(container_port=80, host_port=8080)])
    new.publish(other, [PortRequest(container_port=80, host_port=8081)])


def test_a_port_taken_while_the_engine_was_down_is_a_warning(lab: Lab) -> None:
    old = lab.network()
    _published(lab, old)
    old.close()
    with lab.host.socket() as thief:
        thief.bind(("0.0.0.0", 8080))
        thief.listen()
        warnings = lab.network().settle(["a"])
        assert len(warnings) == 1
        assert "another program took 0.0.0.0:8080/tcp" in warnings[0]
        assert ask(lab.host, "127.0.0.1", 8080).startswith("a ")


def test_a_stray_link_of_a_crash_is_swept(lab: Lab) -> None:
    network = lab.network()
    _, endpoint = lab.container(network, "a")
    space = Namespace()
    stray = endpoint.host_interface[:-2] + "fe"
    with Channel(NETLINK_ROUTE) as channel:
        links = Links(channel)
        bridge = links.find(network.bridge)
        assert bridge is not None
        links.create_veth(VethPair(stray, bridge.number, "eth0", "02:00:00:00:00:01", space.fd, 1500, False))
        network.settle(["a"])
        assert links.find(stray) is None
        assert links.find(endpoint.host_interface) is not None
    space.close()


def test_a_lost_link_is_told(lab: Lab) -> None:
    network = lab.network()
    _, endpoint = lab.container(network, "a")
    with Channel(NETLINK_ROUTE) as channel:
        Links(channel).delete(endpoint.host_interface)
    assert "restart the container" in network.settle(["a"])[0]


def test_records_that_make_no_sense_are_dropped(lab: Lab) -> None:
    network = lab.network()
    lab.container(network, "a")
    network.close()
    folder = lab.tmp_path / "engine" / "run" / "network" / "bridge"
    (folder / "x.json").write_bytes(b"{")
    (lab.tmp_path / "engine" / "network" / "bridge.json").write_bytes(b"\0")
    again = lab.network()
    assert set(again.endpoints()) == {"a"}
    again.settle([])
    assert os.listdir(folder) == []


def test_reconcile_of_an_engine_without_containers_makes_nothing(lab: Lab) -> None:
    network = lab.network()
    assert network.settle([]) == []
    assert lab.host.links() == ["lo"]
    assert lab.tables() == []
