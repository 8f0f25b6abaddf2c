"""What limits mean to a user, through the command line: the same on cgroups of version 1 and of version 2.

Runs here, on whatever this machine has, and again in `test_user_mode_linux`, where it is version 2.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import PrivateEngine, until

from proa.runtime import cgroups

VERSION2 = [h.name for h in cgroups.hierarchies()] == [""]


@pytest.fixture(scope="module")
def box(busybox_tar: Path) -> Iterator[PrivateEngine]:
    """One engine for all: the slow machine would spend half its time on clearing up after each."""
    private = PrivateEngine(Path(tempfile.mkdtemp(prefix="proa-test-")))
    private.proa("import", str(busybox_tar), "busybox")
    yield private
    private.close()


def control_file(one: str, two: str) -> str:
    """A control file as a container sees it, by its names in version 1 and 2."""
    return f"/sys/fs/cgroup/{two}" if VERSION2 else f"/sys/fs/cgroup/{one.partition('.')[0]}/{one}"


def cgroups_of(engine: PrivateEngine) -> set[str]:
    """Directories of the engine's containers in all hierarchies."""
    prefix = (engine.root / "engine-id").read_text().strip()
    found: set[str] = set()
    for hierarchy in cgroups.hierarchies():
        top = Path(hierarchy.mount_point, "proa")
        found |= {str(p) for p in top.iterdir() if p.name.startswith(prefix)} if top.is_dir() else set()
    return found


def test_limits_are_seen_inside_and_cannot_be_changed(box: PrivateEngine) -> None:
    options = ("--memory", "32m", "--memory-swap", "32m", "--pids-limit", "20", "--cpus", "0.5", "--cpu-shares", "512")
    pids = control_file("pids.max", "pids.max")
    script = f"""
    cat {control_file("memory.limit_in_bytes", "memory.max")} {pids}
    cat {control_file("cpu.cfs_quota_us", "cpu.max")} {control_file("cpu.shares", "cpu.weight")}
    (echo max > {pids}) 2>/dev/null || echo unchanged
    mkdir {os.path.dirname(pids)}/more 2>/dev/null || echo alone
    """
    memory, tasks, quota, shares, *refusals = box.sh(script, *options).splitlines()
    assert (memory, tasks) == (str(32 << 20), "20")
    assert (quota, shares) == (("50000 100000", "59") if VERSION2 else ("50000", "512"))
    assert refusals == ["unchanged", "alone"]


def test_a_container_out_of_memory_is_said_to_be_killed(box: PrivateEngine) -> None:
    grow = ("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")
    done = box.proa("run", "--name", "greedy", "--network", "none", "--memory", "16m", "busybox", *grow, check=False)
    assert done.returncode == 137
    assert box.inspect("greedy")["State"]["OOMKilled"]
    box.proa("run", "--name", "modest", "--network", "none", "--memory", "16m", "busybox", "true")
    assert not box.inspect("modest")["State"]["OOMKilled"]
    box.proa("rm", "greedy", "modest")


def test_no_more_tasks_than_allowed(box: PrivateEngine) -> None:
    forks = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; echo not reached"
    done = box.proa("run", "--rm", "--network", "none", "--pids-limit", "5", "busybox", "sh", "-c", forks, check=False)
    assert b"can't fork" in done.stderr


def test_pausing_stops_and_stopping_ends_every_process(box: PrivateEngine) -> None:
    counting = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"
    box.proa("run", "-d", "--name", "busy", "--network", "none", "busybox", "sh", "-c", f"({counting}) & {counting}")
    until(lambda: box.out("logs", "busy"), "the first line")
    box.proa("pause", "busy")
    count = len(box.out("logs", "busy"))
    assert box.inspect("busy")["State"]["Status"] == "paused"
    assert len(box.out("logs", "busy")) == count
    box.proa("unpause", "busy")
    until(lambda: len(box.out("logs", "busy")) > count, "more lines")
    box.proa("rm", "-f", "busy")
    assert cgroups_of(box) == set()


def test_an_exec_is_limited_as_its_container(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "limited", "--network", "none", "--memory", "24m", "busybox", "sleep", "100")
    inside = box.out("exec", "limited", "cat", "/proc/self/cgroup").splitlines()
    assert inside
    assert {line.split(":", 2)[2] for line in inside if VERSION2 or line.split(":")[1] in ("memory", "pids")} == {"/"}
    grow = ("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")
    assert box.proa("exec", "limited", *grow, check=False).returncode == 137
    box.proa("rm", "-f", "limited")


def test_devices_by_rule(box: PrivateEngine) -> None:
    # Opening the log for writing does nothing, and the kernel refuses it to nobody.
    script = "mknod /tmp/log c 1 11 2>/dev/null; [ -c /tmp/log ] && (: > /tmp/log) 2>/dev/null && echo opened; :"
    assert box.sh(script) == ""
    assert box.sh("(: > /dev/kmsg) && echo opened", "--device", "/dev/kmsg") == "opened"
    assert box.sh(script, "--privileged") == "opened"


def test_usage_is_counted(box: PrivateEngine) -> None:
    spin = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 100"
    box.proa("run", "-d", "--name", "spun", "--network", "none", "--memory", "64m", "busybox", "sh", "-c", spin)

    def used() -> bool:
        row = json.loads(box.out("stats", "--no-stream", "--format", "json", "spun"))
        return "64MiB" in row["MemUsage"] and not row["MemUsage"].startswith("0B") and row["PIDs"] != "0"

    until(used, "memory and processes to be counted")
    box.proa("rm", "-f", "spun")


def test_a_privileged_container_divides_its_own_cgroup(box: PrivateEngine) -> None:
    """Delegation: what runs systemd or another engine inside makes cgroups of its own, and they go with it."""
    inner = f"{os.path.dirname(control_file('pids.max', 'pids.max'))}/inner"
    enable = "mkdir {0}/../init; echo 1 > {0}/../init/cgroup.procs; echo +pids > {0}/../cgroup.subtree_control"
    script = f"""
    mkdir {inner}
    {enable.format(inner) if VERSION2 else ":"}
    echo 3 > {inner}/pids.max
    sh -c 'echo 0 > {inner}/cgroup.procs; for i in 1 2 3 4 5; do sleep 1 & done' 2>&1
    cat {inner}/pids.max
    """
    said = box.sh(script, "--privileged").splitlines()
    assert said[-1] == "3"
    assert any("can't fork" in line for line in said)
    assert cgroups_of(box) == set()
