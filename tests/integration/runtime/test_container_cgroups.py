"""Limits, freezing and accounting on the real kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from proa.errors import Conflict, Invalid, Unsupported
from proa.runtime import cgroups
from proa.runtime.cgroups.cgroup import Cgroup


@pytest.fixture
def path() -> str:
    return f"/proa/test-{os.getpid()}-{time.monotonic_ns()}"


@pytest.fixture
def cgroup(path: str) -> Iterator[Cgroup]:
    made = cgroups.create(path)
    yield made
    made.remove()


VERSION2 = [h.name for h in cgroups.hierarchies()] == [""]
# A kernel without the controller cannot judge the value.
REFUSED = (Invalid, Unsupported) if VERSION2 else Invalid


def read(cgroup: Cgroup, one: str, two: str) -> str:
    """A control file by its names in version 1 and version 2."""
    name = two if VERSION2 else one
    controller = "" if VERSION2 else one.partition(".")[0]
    with open(f"{cgroup.directories[controller]}/{name}") as file:
        return file.read().strip()


def test_limits_are_written(cgroup: Cgroup) -> None:
    cgroup.apply(
        {
            "memory": {"limit": 64 << 20, "swap": 64 << 20, "reservation": 32 << 20, "swappiness": 0},
            "cpu": {"quota": 50_000, "period": 100_000, "shares": 512, **({} if VERSION2 else {"cpus": "0"})},
            "pids": {"limit": 7},
        }
    )
    assert read(cgroup, "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert read(cgroup, "memory.memsw.limit_in_bytes", "memory.swap.max") == str(0 if VERSION2 else 64 << 20)
    assert read(cgroup, "memory.soft_limit_in_bytes", "memory.low") == str(32 << 20)
    assert read(cgroup, "cpu.cfs_quota_us", "cpu.max") == ("50000 100000" if VERSION2 else "50000")
    assert read(cgroup, "cpu.shares", "cpu.weight") == ("59" if VERSION2 else "512")
    assert VERSION2 or read(cgroup, "cpuset.cpus", "") == "0"
    assert read(cgroup, "pids.max", "pids.max") == "7"
    # Both up and down again, in the order the kernel wants.
    cgroup.apply({"memory": {"limit": 128 << 20, "swap": 256 << 20}})
    assert read(cgroup, "memory.memsw.limit_in_bytes", "memory.swap.max") == str((128 if VERSION2 else 256) << 20)
    cgroup.apply({"memory": {"limit": 16 << 20, "swap": 16 << 20}, "pids": {"limit": -1}})
    assert read(cgroup, "memory.limit_in_bytes", "memory.max") == str(16 << 20)
    assert read(cgroup, "pids.max", "pids.max") == "max"


def test_bad_limits_are_refused(cgroup: Cgroup) -> None:
    for resources in ({"cpu": {"quota": 1}}, {"memory": {"limit": 1 << 20, "swap": 1 << 19}}):
        with pytest.raises(Invalid):
            cgroup.apply(resources)
    with pytest.raises(REFUSED):
        cgroup.apply({"cpu": {"cpus": "999"}})
    with pytest.raises(Unsupported):
        cgroup.apply({"hugepageLimits": [{"pageSize": "3GB", "limit": 0}]})
    with pytest.raises(Unsupported):
        cgroup.apply({"network": {"classID": 1}})


def test_creation_fails_without_a_trace(path: str) -> None:
    with pytest.raises(Invalid):
        cgroups.create(path, {"memory": {"limit": "many"}})
    with pytest.raises(REFUSED):
        cgroups.create(path, {"cpu": {"cpus": "999"}})
    assert cgroups.open_existing(path) is None
    for bad in ("/", "/x", "/proa/../x", "proa/x", "/proa/x\n", "/proa/" + "x" * 300):
        with pytest.raises(Invalid):
            cgroups.create(bad)


def test_a_second_of_the_same_name_is_a_conflict(path: str, cgroup: Cgroup) -> None:
    with pytest.raises(Conflict):
        cgroups.create(path)
    found = cgroups.open_existing(path)
    assert found is not None
    assert found.directories == cgroup.directories


def test_container_is_in_its_cgroups_and_they_go_with_it(containers: Any) -> None:
    pid = containers.start("sleep", "100")
    with open(f"/proc/{pid}/cgroup") as file:
        memberships = dict(line.strip().split(":", 2)[1:] for line in file)
    for hierarchy in cgroups.hierarchies():
        assert "/proa/test-" in memberships[hierarchy.name]
    assert containers.call("cgroup", pid, "pids")["result"] == [pid]
    containers.stop(pid)
    for hierarchy in cgroups.hierarchies():
        assert not os.path.isdir(hierarchy.mount_point + memberships[hierarchy.name])


def test_memory_limit_kills(containers: Any) -> None:
    resources = {"memory": {"limit": 24 << 20, "swap": 24 << 20}}
    result = containers.sh("dd if=/dev/zero of=/dev/null bs=100M count=1; echo survived $?", resources=resources)
    assert result.stdout == "survived 137\n"
    assert result.oom_kills == 1
    result = containers.run("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1", resources=resources)
    assert (result.status, result.oom_kills) == (137, 1)


def test_pids_limit_stops_forks(containers: Any) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; echo done"
    result = containers.sh(script, resources={"pids": {"limit": 4}})
    assert "can't fork" in result.stderr


def test_device_rules(containers: Any) -> None:
    # Opening /dev/kmsg for writing does nothing by itself, and is refused to nobody else.
    script = "mknod /tmp/log c 1 11 && (: > /tmp/log) 2>/dev/null && echo opened; head -c 1 /dev/zero | wc -c"
    assert containers.sh(script).stdout == "1\n"
    everything = {"devices": [{"allow": True, "access": "rwm"}]}
    assert containers.sh(script, resources=everything).stdout == "opened\n1\n"
    partly = {"devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "access": "rm"}]}
    assert "Operation not permitted" in containers.sh("echo x > /dev/zero", resources=partly).stderr


def test_freeze_and_thaw(containers: Any) -> None:
    pid = containers.start("/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done")
    containers.call("read_until", pid, "3")
    containers.call("cgroup", pid, "freeze")
    before = containers.call("read_until", pid, "never", 0.2)["stdout"]
    assert containers.call("read_until", pid, "never", 0.2)["stdout"] == before
    containers.call("cgroup", pid, "thaw")
    assert len(containers.call("read_until", pid, "never", 0.2)["stdout"]) > len(before)
    stats = containers.call("cgroup", pid, "stats")["result"]
    assert stats["pids_current"] in (1, 2)
    assert stats["memory_usage"] > 0
    assert stats["cpu_total_ns"] > 0
    containers.stop(pid)


def test_kill_reaches_every_process(containers: Any) -> None:
    def host_pids(config: dict[str, Any]) -> None:
        namespaces = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [namespace for namespace in namespaces if namespace["type"] != "pid"]

    pid = containers.start("/bin/sh", "-c", "for i in 1 2 3; do sleep 100 & done; echo ready; wait", change=host_pids)
    containers.call("read_until", pid, "ready")
    assert len(containers.call("cgroup", pid, "pids")["result"]) == 4
    containers.call("cgroup", pid, "kill")
    assert containers.wait(pid).status == 137
