"""More processes in a running container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from proa.errors import Conflict, Denied, Invalid, NotFound
from proa.runtime import defaults

DEFAULT_CAPABILITIES = "00000000a80425fb"


@pytest.fixture
def target(containers: Any) -> Iterator[int]:
    pid = containers.start("/bin/sh", "-c", "mount; echo ready; cat")
    containers.call("read_until", pid, "ready")
    yield pid
    if pid in containers.pids:
        containers.stop(pid)


def test_shares_everything_with_the_container(containers: Any, target: int) -> None:
    script = "hostname; for n in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$n; readlink /proc/1/ns/$n; done"
    lines = containers.exec(target, "/bin/sh", "-c", script).stdout.split()
    assert lines[0] == "box"
    assert lines[1::2] == lines[2::2]
    for hierarchy in ("memory", "pids", "devices", "freezer"):
        assert containers.exec(target, "grep", hierarchy, "/proc/self/cgroup").stdout.strip().endswith(":/")


def test_has_the_same_credentials_and_filter(containers: Any, target: int) -> None:
    status = containers.exec(target, "cat", "/proc/self/status").stdout
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert f"{name}:\t{DEFAULT_CAPABILITIES}" in status
    for name in ("CapInh", "CapAmb", "SigIgn", "SigBlk"):
        assert f"{name}:\t0000000000000000" in status
    assert "Seccomp:\t2" in status
    status = containers.exec(target, "cat", "/proc/self/status", user="user").stdout
    assert "CapEff:\t0000000000000000" in status
    assert "Uid:\t1000" in status


def test_added_capabilities_are_not_inheritable(containers: Any, target: int) -> None:
    capabilities = defaults.capabilities((*defaults.CAPABILITIES, "CAP_NET_ADMIN"))
    status = containers.exec(target, "cat", "/proc/self/status", capabilities=capabilities).stdout
    assert f"CapEff:\t{int(DEFAULT_CAPABILITIES, 16) | 1 << 12:016x}" in status
    assert "CapInh:\t0000000000000000" in status


def test_status_streams_and_environment(containers: Any, target: int) -> None:
    result = containers.exec(
        target, "/bin/sh", "-c", "env; echo err >&2; pwd; exit 5", env=["A=1", "PATH=/bin"], cwd="/tmp"
    )
    assert result.status == 5
    assert "A=1" in result.stdout
    assert "SECRET" not in result.stdout
    assert result.stdout.endswith("/tmp\n")
    assert result.stderr == "err\n"


def test_typed_errors(containers: Any, target: int) -> None:
    with pytest.raises(NotFound, match="executable file not found in"):
        containers.exec(target, "nosuch")
    with pytest.raises(Denied, match="permission denied"):
        containers.exec(target, "/etc/passwd")
    with pytest.raises(Invalid, match="unable to find user nobody"):
        containers.exec(target, "true", user="nobody")
    for number in range(3, 16):
        with pytest.raises((Invalid, Denied)):
            containers.exec(target, "pwd", cwd=f"/proc/self/fd/{number}")


def test_a_container_that_ended_is_a_conflict(containers: Any) -> None:
    pid = containers.start("sleep", "100")
    containers.call("signal", pid, 9)
    containers.call("read_until", pid, "never", 1.0)
    with pytest.raises(Conflict, match="not running"):
        containers.exec(pid, "true")
    containers.wait(pid)


def test_ends_with_the_container(containers: Any, target: int) -> None:
    other = containers.start_exec(target, "sleep", "100")
    containers.stop(target)
    assert containers.wait(other).status == 137


def test_monitor_stays_in_its_own_pid_namespace(containers: Any, target: int) -> None:
    containers.exec(target, "true")
    server = containers.server.pid
    assert os.readlink(f"/proc/{server}/ns/pid_for_children") == os.readlink(f"/proc/{server}/ns/pid")


def test_process_one_cannot_look_into_a_joining_process(containers: Any) -> None:
    """CVE-2016-9962: even process 1 with CAP_SYS_PTRACE left out of the defaults reads no fd, link or memory."""
    script = (
        "while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) ;; *) "
        "for l in exe cwd root; do t=$(readlink $p/$l 2>/dev/null) && echo $l $t; done; "
        "for f in $p/fd/*; do t=$(readlink $f 2>/dev/null) && echo fd $t; done; esac; done; done"
    )
    pid = containers.start("/bin/sh", "-c", script)
    for _ in range(40):
        containers.exec(pid, "true")
    containers.call("signal", pid, 9)
    seen = set(containers.wait(pid).stdout.splitlines())
    allowed = {"exe /bin/busybox", "cwd /", "root /"}
    assert {line for line in seen if not line.startswith("fd ")} <= allowed
    assert all(line.startswith(("fd pipe:", "fd /proc", "fd socket:")) for line in seen if line.startswith("fd "))
