"""Limits and policies changed while a container runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from engines import PrivateEngine

pytestmark = pytest.mark.root

MIB = 1 << 20
CGROUPS = Path("/sys/fs/cgroup")


def limit(box: PrivateEngine, name: str, controller: str, file: str) -> str:
    """A control file of a running container, as the kernel has it."""
    pid = box.inspect(name)["State"]["Pid"]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return (CGROUPS / controller / path.lstrip("/") / file).read_text().strip()
    raise AssertionError(f"no cgroup of {controller}")


def test_limits(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "grown", "--network", "none", "-m", "64m", "busybox", "sleep", "1000")
    memory = ("--memory", "128m", "--memory-swap", "256m")
    changes = (*memory, "--cpu-shares", "256", "--pids-limit", "77", "--cpus", "0.5")
    assert box.out("update", *changes, "grown") == "grown"
    assert limit(box, "grown", "memory", "memory.limit_in_bytes") == str(128 * MIB)
    assert limit(box, "grown", "cpu", "cpu.shares") == "256"
    assert limit(box, "grown", "cpu", "cpu.cfs_quota_us") == "50000"
    assert limit(box, "grown", "pids", "pids.max") == "77"
    host = box.inspect("grown")["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (128 * MIB, 256 * MIB, 500_000_000)
    box.proa("restart", "-t", "0", "grown")
    assert limit(box, "grown", "pids", "pids.max") == "77"


def test_a_refused_update_changes_nothing(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "firm", "--network", "none", "-m", "64m", "busybox", "sleep", "1000")
    refused = box.proa("update", "--pids-limit", "50", "--cpuset-cpus", "5000", "firm", check=False)
    assert refused.returncode == 1
    assert limit(box, "firm", "pids", "pids.max") == "2048"
    assert box.inspect("firm")["HostConfig"]["CpusetCpus"] == ""
    refused = box.proa("update", "--memory", "256m", "firm", check=False)
    assert b"already set memoryswap limit" in refused.stderr
    assert box.proa("update", "firm", check=False).returncode == 1


def test_a_policy_given_later_counts(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "late", "--network", "none", "busybox", "sleep", "0.3")
    box.proa("update", "--restart", "on-failure:3", "late")
    assert box.inspect("late")["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert box.out("wait", "late") == "0"
    assert box.inspect("late")["RestartCount"] == 0
