"""Namespaces shared with the host or another container, devices and cgroups chosen by the user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from engines import PrivateEngine, until

pytestmark = pytest.mark.root

QUIET = ("--network", "none")


def namespace(box: PrivateEngine, kind: str, *options: str) -> str:
    """The namespace a new container is in."""
    return box.sh(f"readlink /proc/self/ns/{kind}", *options)


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts"])
def test_the_hosts(box: PrivateEngine, kind: str) -> None:
    assert namespace(box, kind, f"--{kind}", "host") == os.readlink(f"/proc/self/ns/{kind}")
    assert namespace(box, kind) != os.readlink(f"/proc/self/ns/{kind}")


def test_another_containers_processes(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "first", *QUIET, "busybox", "sleep", "1000")
    assert "sleep 1000" in box.sh("ps", "--pid", "container:first")
    box.proa("run", "-d", "--name", "second", *QUIET, "--pid", "container:first", "busybox", "sleep", "2000")
    assert "sleep 2000" in box.out("exec", "first", "ps")
    box.proa("stop", "-t", "0", "first")  # the namespace ends with its first process, and all in it
    until(lambda: box.inspect("second")["State"]["Status"] == "exited", "the other to end")
    refused = box.proa("start", "second", check=False)
    assert b"cannot join PID of a non running container" in refused.stderr


def test_another_containers_ipc(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "donor", *QUIET, "--ipc", "shareable", "busybox", "sleep", "1000")
    box.proa("run", "-d", "--name", "alone", *QUIET, "busybox", "sleep", "1000")
    theirs = box.out("exec", "donor", "readlink", "/proc/self/ns/ipc")
    assert namespace(box, "ipc", "--ipc", "container:donor") == theirs
    box.proa("exec", "donor", "sh", "-c", "echo common > /dev/shm/file")
    script = "cat /dev/shm/file; echo back > /dev/shm/answer; mount | grep -c ' /dev/shm .*noexec'; ls /"
    seen = box.sh(script, "--ipc", "container:donor").split()
    assert seen[:2] == ["common", "1"]
    assert "root" in seen  # its own files, not the donor's
    assert box.out("exec", "donor", "cat", "/dev/shm/answer") == "back"
    refused = box.proa("create", "--ipc", "container:alone", "busybox", "true", check=False)
    assert b"non-shareable IPC" in refused.stderr
    refused = box.proa("create", "--pid", "container:absent", "busybox", "true", check=False)
    assert b"No such container: absent" in refused.stderr


def test_device_rules_let_a_device_be_made_and_used(box: PrivateEngine) -> None:
    make = "mknod /tmp/k c 1 11 && : > /tmp/k && echo made"
    assert box.sh(make, "--device-cgroup-rule", "c 1:11 rwm") == "made"
    assert box.proa("run", "--rm", *QUIET, "busybox", "sh", "-c", make, check=False).returncode != 0


def test_io_limits(box: PrivateEngine) -> None:
    device = next((f"/dev/{p.name}" for p in sorted(Path("/sys/block").iterdir())), None)
    if device is None or not Path("/sys/fs/cgroup/blkio").is_dir():
        refused = box.proa("create", "--device-read-bps", "/dev/absent:1mb", "busybox", "true", check=False)
        assert b"no such device" in refused.stderr
        return
    limits = ("--device-read-bps", f"{device}:1mb", "--device-write-iops", f"{device}:77")
    box.proa("run", "-d", "--name", "slow", *QUIET, *limits, "busybox", "sleep", "1000")
    pid = box.inspect("slow")["State"]["Pid"]
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    path = next(line.split(":", 2)[2] for line in lines if line.split(":", 2)[1] == "blkio")
    group = Path("/sys/fs/cgroup/blkio", path.lstrip("/"))
    assert (group / "blkio.throttle.read_bps_device").read_text().split()[1] == str(1 << 20)
    assert (group / "blkio.throttle.write_iops_device").read_text().split()[1] == "77"


def test_gpus_and_other_things_that_are_not_there(box: PrivateEngine) -> None:
    for options, words in (
        (("--gpus", "all"), b'could not select device driver "" with capabilities: [[gpu]]'),
        (("--storage-opt", "size=1g"), b"--storage-opt is supported only for"),
        (("--isolation", "hyperv"), b"invalid isolation"),
    ):
        refused = box.proa("run", *options, *QUIET, "busybox", "true", check=False)
        assert (refused.returncode, words in refused.stderr) == (125, True), refused.stderr
    assert box.containers() == []


def test_annotations_of_ours_are_not_for_users(box: PrivateEngine) -> None:
    script = "grep Seccomp: /proc/self/status"
    assert box.sh(script, "--annotation", "proa.seccomp=off").split()[-1] == "2"
