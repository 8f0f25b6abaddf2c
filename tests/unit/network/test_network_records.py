"""Files of a network, and the checks of what clients ask for."""

from __future__ import annotations

import os
import stat
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import msgspec
import pytest

from proa.errors import Invalid
from proa.network import Endpoint, PortRequest, PublishedPort
from proa.network.records import EndpointRecords, forget_subnets, read_subnets, write_subnets

ENDPOINT = Endpoint(
    container_id="a" * 64,
    network="bridge",
    interface="eth0",
    ip="10.120.0.2",
    prefix=22,
    gateway="10.120.0.1",
    mac="02:70:0a:78:00:02",
    mtu=1500,
    host_interface="pv12340a780002",
    host_number=7,
    ports=(PublishedPort(container_port=80, protocol="tcp", host_ip="0.0.0.0", host_port=8080),),
)


def test_endpoints_are_json_able_and_come_back(tmp_path: Path) -> None:
    assert msgspec.json.decode(msgspec.json.encode(ENDPOINT), type=Endpoint) == ENDPOINT
    records = EndpointRecords(tmp_path / "run", "bridge")
    assert records.load() == {}
    records.remove_all()
    records.write(ENDPOINT)
    records.write(ENDPOINT)
    assert EndpointRecords(tmp_path / "run", "bridge").load() == {ENDPOINT.container_id: ENDPOINT}
    folder = tmp_path / "run/network/bridge"
    assert os.listdir(folder) == [f"{'a' * 64}.json"]
    for directory in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    records.remove(ENDPOINT.container_id)
    records.remove(ENDPOINT.container_id)
    records.remove_all()
    assert not folder.exists()


@pytest.mark.parametrize("bad", ["", "..", "../x", "a/b", ".x", "a\n", "é", "a" * 200])
def test_container_ids_are_file_names(tmp_path: Path, bad: str) -> None:
    with pytest.raises(Invalid):
        EndpointRecords(tmp_path, "bridge").write(msgspec.structs.replace(ENDPOINT, container_id=bad))


def test_the_subnets_are_kept(tmp_path: Path) -> None:
    assert read_subnets(tmp_path, "bridge") == ()
    kept = (IPv4Network("10.120.4.0/22"), IPv6Network("fd00:1::/64"))
    write_subnets(tmp_path, "bridge", kept)
    assert read_subnets(tmp_path, "bridge") == kept
    file = tmp_path / "network/bridge.json"
    file.write_bytes(b'{"subnet": "10.120.4.0/22"}')
    assert read_subnets(tmp_path, "bridge") == kept[:1]
    for garbage in (b"", b"{}", b'{"subnets": ["x"]}', b"\xff"):
        file.write_bytes(garbage)
        assert read_subnets(tmp_path, "bridge") == ()
    forget_subnets(tmp_path, "bridge")
    assert not file.exists()


@pytest.mark.parametrize(
    "request_",
    [
        PortRequest(container_port=0),
        PortRequest(container_port=65536),
        PortRequest(container_port=80, host_port=-1),
        PortRequest(container_port=80, host_port=65536),
        PortRequest(container_port=80, host_port=9000, host_port_end=8999),
        PortRequest(container_port=80, host_port_end=70000),
        PortRequest(container_port=80, protocol="icmp"),
        PortRequest(container_port=80, protocol="TCP"),
    ],
)
def test_port_requests_that_make_no_sense(request_: PortRequest) -> None:
    with pytest.raises(Invalid):
        request_.check()


def test_port_requests_that_do() -> None:
    PortRequest(container_port=1, protocol="udp").check()
    PortRequest(container_port=65535, host_port=1, host_port_end=65535).check()
