"""cgroup version 2 as far as the hybrid layout has it: no controllers, but birth in it, freeze, kill, devices."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.errors import Unsupported
from proa.linux import mount as m
from proa.linux import process as p
from proa.runtime.cgroups import control_files
from proa.runtime.cgroups.resources import parse_resources
from proa.runtime.cgroups.version2 import CgroupV2
from proa.runtime.steps.rootfs import _mount_overlay_by_string


def _mount_point() -> str:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return line.split()[4]
    return ""


@pytest.fixture
def cgroup() -> Iterator[CgroupV2]:
    base = _mount_point()
    if not base:
        pytest.skip("no cgroup version 2 here")
    made = CgroupV2(control_files.make(base, f"/proa/two-{os.getpid()}-{time.monotonic_ns()}"))
    yield made
    made.kill()
    made.remove()


def _born_in(cgroup: CgroupV2) -> tuple[int, int]:
    """A sleeping process that has been in the cgroup since birth: (pid, pidfd)."""
    fds, directory = cgroup.open_join_fds()
    assert fds == []
    assert directory is not None
    reader, writer = os.pipe()
    middle = os.fork()  # pytest may have threads, its fork has one
    if middle == 0:
        pid, _pidfd = p.clone3(p.CLONE_PARENT, exit_signal=0, cgroup_fd=directory)
        if pid == 0:
            while True:
                signal.pause()
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.close(writer)
    os.close(directory)
    os.waitpid(middle, 0)
    pid = int(os.read(reader, 20))
    os.close(reader)
    return pid, p.pidfd_open(pid)


def test_birth_freeze_kill(cgroup: CgroupV2) -> None:
    pid, pidfd = _born_in(cgroup)
    assert cgroup.pids() == [pid]
    cgroup.freeze()
    assert control_files.read_table(cgroup.directory, "cgroup.events")["frozen"] == 1
    cgroup.thaw()
    cgroup.kill()
    result = p.waitid(p.P_PIDFD, pidfd, os.WEXITED | 0x40000000)  # __WALL: its exit signal is none
    assert result == (pid, os.CLD_KILLED, signal.SIGKILL)
    os.close(pidfd)
    assert cgroup.pids() == []
    assert cgroup.oom_kills() == 0
    assert cgroup.stats().memory_limit == -1


def test_limits_without_controllers_fail(cgroup: CgroupV2) -> None:
    if "memory" in control_files.read(cgroup.directory, "cgroup.controllers"):
        pytest.skip("the controllers are here")
    for resources in ({"memory": {"limit": 1 << 26}}, {"pids": {"limit": 5}}, {"cpu": {"quota": 10000}}):
        with pytest.raises(Unsupported, match="needs the cgroup controller"):
            cgroup.apply(resources)


def test_device_program_is_accepted_and_replaced(cgroup: CgroupV2) -> None:
    try:
        cgroup.set_devices(parse_resources({}).device_rules())
    except OSError as error:
        pytest.skip(f"no device programs here: {error}")
    cgroup.set_devices(parse_resources({"devices": [{"allow": False, "access": "rwm"}]}).device_rules())
    child = os.fork()
    if child == 0:
        Path(cgroup.directory, "cgroup.procs").write_text("0")
        try:
            os.open("/dev/null", os.O_RDONLY)
        except PermissionError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_overlay_by_string_for_older_kernels(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/file").touch()
    data = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work".encode()
    child = os.fork()
    if child == 0:
        try:
            p.unshare(p.CLONE_NEWNS)
            m.mount(None, "/", None, m.MS_REC | m.MS_PRIVATE)
            fd = _mount_overlay_by_string(data, readonly=False)
            m.move_mount(fd, "", m.AT_FDCWD, "/")
            assert m.fstatfs_magic(fd) == m.OVERLAYFS_SUPER_MAGIC
            assert os.listdir(f"/proc/self/fd/{fd}") == ["file"]
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
