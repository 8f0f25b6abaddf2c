from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from records import container

from proa.engine.devices import check_devices, device_nodes, device_rules
from proa.engine.types import DeviceMapping, HostConfig
from proa.errors import Invalid, ProaError


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("c 1:3 rwm", {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}),
        ("b 8:* r", {"allow": True, "type": "b", "major": 8, "access": "r"}),
        ("a *:* rwm", {"allow": True, "type": "a", "access": "rwm"}),
    ],
)
def test_rules(text: str, rule: dict[str, Any]) -> None:
    assert device_rules(container(host={"device_cgroup_rules": [text]}))[-1] == rule


@pytest.mark.parametrize(
    "text", ["", "c 1:3", "c 1:3 rwx", "d 1:3 r", "c 1:3 rwm\n", "c ٣:3 r", "a 1:2 rwm", "c -1:3 r"]
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(Invalid, match="invalid device cgroup rule format"):
        check_devices(HostConfig(device_cgroup_rules=[text]))


def test_a_directory_stands_for_its_devices(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("no device")
    (tmp_path / "link").symlink_to("/dev/null")
    host = {"devices": [DeviceMapping(path_on_host=str(tmp_path), path_in_container="/dev/x")]}
    assert device_nodes(container(host=host)) == []


def test_a_privileged_container_gets_the_hosts_devices_but_not_its_own() -> None:
    found = container(host={"privileged": True})
    paths = [node["path"] for node in device_nodes(found)]
    assert "/dev/null" not in paths
    assert "/dev/console" not in paths
    assert not [p for p in paths if p.startswith(("/dev/pts/", "/dev/shm/", "/dev/mqueue/"))]
    assert len(set(paths)) == len(paths)
    assert device_rules(found) == [{"allow": True, "access": "rwm"}]


@pytest.mark.parametrize(
    "host",
    [
        {"devices": [DeviceMapping(path_on_host="vendor.com/class=name")]},
        {"devices": [DeviceMapping(path_on_host="/dev/null", cgroup_permissions="rx")]},
        {"device_requests": [{"Driver": "", "Capabilities": [["gpu"]]}]},
    ],
)
def test_devices_that_cannot_be_given(host: dict[str, Any]) -> None:
    with pytest.raises(ProaError):
        check_devices(HostConfig(**host))
