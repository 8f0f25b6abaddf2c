"""cgroups of version 2, one tree for all controllers (kernel: admin-guide/cgroup-v2)."""

from __future__ import annotations

import math
import os
import time

from proa.errors import Invalid, TimedOut, Unsupported
from proa.linux import bpf, signals
from proa.linux.process import in_user_namespace
from proa.runtime.cgroups import control_files as f
from proa.runtime.cgroups.cgroup import Stats
from proa.runtime.cgroups.device_rules import device_program
from proa.runtime.cgroups.resources import Cpu, Memory, parse_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from proa.runtime.cgroups.device_rules import DeviceRule


class CgroupV2:
    """See `cgroup.Cgroup`. Made by `cgroups.create` and `cgroups.open_existing`."""

    __slots__ = ("directories", "directory")

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.directories = {"": directory}

    def open_join_fds(self) -> tuple[list[int], int | None]:
        return [], os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def set_devices(self, rules: Sequence[DeviceRule]) -> None:
        """Attach the device rules as a program; one attached before is replaced without a gap."""
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        program = -1
        old = -1
        try:
            if in_user_namespace():
                return  # only the machine's root attaches programs, and only he can make devices that work
            program = bpf.load(bpf.BPF_PROG_TYPE_CGROUP_DEVICE, device_program(rules))
            attached = bpf.attached(directory, bpf.BPF_CGROUP_DEVICE)
            if len(attached) == 1:
                old = bpf.open_by_id(attached[0])
                bpf.attach(directory, program, bpf.BPF_CGROUP_DEVICE, bpf.BPF_F_ALLOW_MULTI | bpf.BPF_F_REPLACE, old)
            else:
                bpf.attach(directory, program, bpf.BPF_CGROUP_DEVICE, bpf.BPF_F_ALLOW_MULTI)
        finally:
            for fd in (program, old, directory):
                if fd >= 0:
                    os.close(fd)

    def apply(self, resources: Mapping[str, Any]) -> None:
        wanted = parse_resources(resources)
        self._apply_memory(wanted.memory)
        self._apply_cpu(wanted.cpu)
        if wanted.pids is not None:
            self._write("pids.max", wanted.pids.limit if wanted.pids.limit > 0 else "max")
        if wanted.block_io.weight:
            self._write("io.weight", _io_weight(wanted.block_io.weight))
        for weighted in wanted.block_io.weight_device:
            self._write("io.weight", f"{weighted.major}:{weighted.minor} {_io_weight(weighted.weight)}")
        for _name, key, device in wanted.block_io.throttles():
            self._write("io.max", f"{device.major}:{device.minor} {key}={device.rate or 'max'}")
        for device_name, limits in wanted.rdma.items():
            self._write("rdma.max", limits.line(device_name))
        if wanted.network.class_id is not None or wanted.network.priorities:
            raise Unsupported("cgroup version 2 has no network classes and priorities", code="no-controller")
        for huge in wanted.hugepage_limits:
            self._write(f"hugetlb.{huge.page_size}.max", huge.limit)
        for name, value in wanted.unified.items():
            self._write(name, value)

    def _write(self, name: str, value: str | int) -> None:
        try:
            f.write(self.directory, name, value)
        except Unsupported:
            controller = name.partition(".")[0]
            text = f"a {controller} limit needs the cgroup controller {controller}, which is not available here"
            raise Unsupported(text, code="no-controller", subject=controller) from None

    def _apply_memory(self, memory: Memory) -> None:
        limit, swap = memory.limit, memory.swap
        if swap is not None:
            if swap < 0:
                self._write("memory.swap.max", "max")
            elif limit is None or limit < 0 or swap < limit:
                raise Invalid("a limit of memory and swap together needs a lower memory limit", code="invalid-limit")
            else:
                self._write("memory.swap.max", swap - limit)
        if limit is not None:
            self._write("memory.max", limit if limit >= 0 else "max")
        if memory.reservation is not None:
            self._write("memory.low", max(memory.reservation, 0))
        if memory.disable_oom_killer:
            raise Unsupported("cgroup version 2 cannot disable the OOM killer", code="no-controller")

    def _apply_cpu(self, cpu: Cpu) -> None:
        if cpu.shares:
            self._write("cpu.weight", weight_of_shares(cpu.shares))
        if cpu.realtime_runtime or cpu.realtime_period:
            raise Unsupported("cgroup version 2 has no realtime limits", code="no-controller")
        if cpu.idle is not None:
            self._write("cpu.idle", cpu.idle)
        if cpu.period or cpu.quota is not None:
            quota = str(cpu.quota) if cpu.quota and cpu.quota > 0 else "max"
            self._write("cpu.max", f"{quota} {cpu.period or 100_000}")
        if cpu.burst is not None:
            self._write("cpu.max.burst", cpu.burst)
        for name, wanted in (("cpuset.cpus", cpu.cpus), ("cpuset.mems", cpu.mems)):
            if wanted:
                self._write(name, wanted)

    def pids(self) -> list[int]:
        return sorted(set(f.pids(self.directory)))

    def freeze(self) -> None:
        self._freeze(1, timeout_s=10.0)

    def thaw(self) -> None:
        self._freeze(0, timeout_s=10.0)

    def _freeze(self, state: int, *, timeout_s: float) -> None:
        f.write(self.directory, "cgroup.freeze", state)
        deadline = time.monotonic() + timeout_s
        while f.read_table(self.directory, "cgroup.events").get("frozen", state) != state:
            if time.monotonic() > deadline:
                f.write(self.directory, "cgroup.freeze", 0)
                raise TimedOut(f"the processes could not be paused within {timeout_s} s", code="freeze-timed-out")
            time.sleep(0.001)

    def kill(self) -> None:
        try:
            f.write(self.directory, "cgroup.kill", 1)
            return
        except Unsupported:
            pass  # before Linux 5.14, or the cgroup is gone
        for _ in range(1000):
            found = self.pids()
            if not found:
                return
            for pid in found:
                try:
                    os.kill(pid, signals.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.001)

    def stats(self) -> Stats:
        cpu = f.read_table(self.directory, "cpu.stat")
        stats = Stats()
        stats.cpu_total_ns = cpu.get("usage_usec", 0) * 1000
        stats.cpu_user_ns = cpu.get("user_usec", 0) * 1000
        stats.cpu_system_ns = cpu.get("system_usec", 0) * 1000
        stats.cpu_periods = cpu.get("nr_periods", 0)
        stats.cpu_throttled_periods = cpu.get("nr_throttled", 0)
        stats.cpu_throttled_ns = cpu.get("throttled_usec", 0) * 1000
        stats.memory_usage = max(f.read_number(self.directory, "memory.current"), 0)
        stats.memory_max_usage = max(f.read_number(self.directory, "memory.peak"), 0)
        stats.memory_limit = f.read_number(self.directory, "memory.max")
        stats.memory_failures = f.read_table(self.directory, "memory.events").get("max", 0)
        stats.memory_stat = f.read_table(self.directory, "memory.stat")
        stats.pids_current = max(f.read_number(self.directory, "pids.current"), 0)
        stats.pids_limit = f.read_number(self.directory, "pids.max")
        for line in f.read(self.directory, "io.stat").splitlines():
            device, *pairs = line.split()
            major, minor = (int(number) for number in device.split(":"))
            for key, value in (pair.split("=") for pair in pairs):
                operation = {"r": "read", "w": "write"}.get(key[0])
                if operation and key[1:] == "bytes":
                    stats.io_bytes[major, minor, operation] = int(value)
                elif operation and key[1:] == "ios":
                    stats.io_operations[major, minor, operation] = int(value)
        return stats

    def oom_kills(self) -> int:
        return f.read_table(self.directory, "memory.events").get("oom_kill", 0)

    def remove(self, timeout_s: float = 5.0, *, keep_parent: bool = False) -> None:
        f.remove(self.directory, timeout_s, keep_parent=keep_parent)


def weight_of_shares(shares: int) -> int:
    """cpu.weight (1-10000) for version 1's cpu.shares (2-262144), so that both defaults, 1024 and 100, correspond.

    The curve is the one of opencontainers/cgroups and crun since 2025.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    exponent = math.log2(shares)
    return math.ceil(10 ** ((exponent**2 + 125 * exponent) / 612.0 - 7.0 / 34.0))


def _io_weight(weight: int) -> int:
    """io.weight (1-10000) for version 1's 10-1000."""
    return 1 + (max(weight, 10) - 10) * 9999 // 990


def enable_controllers(root: str, path: str) -> None:
    """Let every controller there is act on the children of each directory from `root` down to the parent of `path`.

    What is refused (processes in a parent, controllers held by others) is left: a limit that then cannot be set fails.
    """
    directory = root
    for part in ["", *os.path.dirname(path).strip("/").split("/")]:
        directory = f"{directory}/{part}" if part else directory
        missing = set(f.read(directory, "cgroup.controllers").split())
        missing -= set(f.read(directory, "cgroup.subtree_control").split())
        for controller in sorted(missing):
            try:
                fd = os.open(f"{directory}/cgroup.subtree_control", os.O_WRONLY | os.O_CLOEXEC)
            except OSError:
                break
            try:
                os.write(fd, f"+{controller}".encode())
            except OSError:
                continue
            finally:
                os.close(fd)
