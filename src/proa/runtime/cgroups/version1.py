"""cgroups of version 1, where every controller has its own tree (kernel: admin-guide/cgroup-v1)."""

from __future__ import annotations

import os
import time

from proa.errors import Invalid, TimedOut, Unsupported
from proa.linux import signals
from proa.runtime.cgroups import control_files as f
from proa.runtime.cgroups.cgroup import Stats
from proa.runtime.cgroups.resources import Cpu, Memory, Network, parse_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from proa.runtime.cgroups.device_rules import DeviceRule

_NANOSECONDS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_UNLIMITED = 1 << 62


class CgroupV1:
    """See `cgroup.Cgroup`. Made by `cgroups.create` and `cgroups.open_existing`."""

    __slots__ = ("_by_controller", "directories")

    def __init__(self, directories: Mapping[str, str]) -> None:
        self.directories = dict(directories)
        self._by_controller = {
            controller: directory for name, directory in directories.items() for controller in name.split(",")
        }

    def _directory(self, controller: str, what: str) -> str:
        directory = self._by_controller.get(controller)
        if directory is None:
            text = f"{what} needs the cgroup controller {controller}, which this machine lacks"
            raise Unsupported(text, code="no-controller", subject=controller)
        return directory

    def open_join_fds(self) -> tuple[list[int], int | None]:
        # `tasks`, not cgroup.procs: a thread that moves itself does not wait for the lock that all forks share.
        return [os.open(f"{path}/tasks", os.O_WRONLY | os.O_CLOEXEC) for path in self.directories.values()], None

    def set_devices(self, rules: Sequence[DeviceRule]) -> None:
        """Write the device rules: everything is denied first."""
        directory = self._directory("devices", "a device rule")
        f.write(directory, "devices.deny", "a")
        for rule in rules:
            f.write(directory, "devices.allow" if rule.allow else "devices.deny", rule.line())

    def apply(self, resources: Mapping[str, Any]) -> None:
        wanted = parse_resources(resources)
        if wanted.unified:
            raise Unsupported("`unified` limits need cgroup version 2", code="no-controller")
        self._apply_memory(wanted.memory)
        self._apply_cpu(wanted.cpu)
        if wanted.pids is not None:
            limit = wanted.pids.limit
            f.write(self._directory("pids", "a pids limit"), "pids.max", limit if limit > 0 else "max")
        weights = [str(wanted.block_io.weight)] if wanted.block_io.weight else []
        weights += [f"{device.major}:{device.minor} {device.weight}" for device in wanted.block_io.weight_device]
        for weight in weights:
            directory = self._directory("blkio", "a block I/O weight")
            name = "blkio.weight_device" if ":" in weight else "blkio.weight"
            # Kernels since 5.0 have weights only of the BFQ scheduler, under its name.
            bfq = f"blkio.bfq{name.removeprefix('blkio')}"
            f.write(directory, name if os.access(f"{directory}/{name}", os.F_OK) else bfq, weight)
        for name, _key, device in wanted.block_io.throttles():
            directory = self._directory("blkio", "a block I/O limit")
            f.write(directory, name, f"{device.major}:{device.minor} {device.rate}")
        self._apply_network(wanted.network)
        for device_name, limits in wanted.rdma.items():
            f.write(self._directory("rdma", "an RDMA limit"), "rdma.max", limits.line(device_name))
        for huge in wanted.hugepage_limits:
            directory = self._directory("hugetlb", "a huge page limit")
            f.write(directory, f"hugetlb.{huge.page_size}.limit_in_bytes", huge.limit)

    def _apply_network(self, network: Network) -> None:
        if network.class_id is not None:
            f.write(self._directory("net_cls", "a network class"), "net_cls.classid", network.class_id)
        for one in network.priorities:
            directory = self._directory("net_prio", "a network priority")
            f.write(directory, "net_prio.ifpriomap", f"{one.name} {one.priority}")

    def _apply_memory(self, memory: Memory) -> None:
        if memory == Memory():
            return
        directory = self._directory("memory", "a memory limit")
        both, own = "memory.memsw.limit_in_bytes", "memory.limit_in_bytes"
        swap = memory.swap
        if swap is not None and memory.limit is not None and 0 <= swap < memory.limit:
            raise Invalid("the limit of memory and swap together is below the memory limit", code="invalid-limit")
        if swap is not None and not os.access(f"{directory}/{both}", os.F_OK):
            if swap >= 0 and swap != memory.limit:
                raise Unsupported("this kernel does not account swap", code="no-swap-limit", subject=both)
            swap = None
        if memory.limit is not None:
            try:
                f.write(directory, own, memory.limit)
            except Invalid:
                # Never above the limit of both, so that one has to be raised first.
                if swap is None:
                    raise
                f.write(directory, both, swap)
                f.write(directory, own, memory.limit)
        if swap is not None:
            f.write(directory, both, swap)
        if memory.reservation is not None:
            f.write(directory, "memory.soft_limit_in_bytes", memory.reservation)
        if memory.swappiness is not None:
            f.write(directory, "memory.swappiness", memory.swappiness)
        if memory.disable_oom_killer:
            f.write(directory, "memory.oom_control", 1)

    def _apply_cpu(self, cpu: Cpu) -> None:
        if cpu.shares:
            f.write(self._directory("cpu", "a cpu share"), "cpu.shares", cpu.shares)
        # The period first: the runtime may not be above it.
        for name, time_us in (("period", cpu.realtime_period), ("runtime", cpu.realtime_runtime)):
            if time_us:
                f.write(self._directory("cpu", "a realtime limit"), f"cpu.rt_{name}_us", time_us)
        if cpu.idle is not None:
            f.write(self._directory("cpu", "cpu idling"), "cpu.idle", cpu.idle)
        if cpu.period or cpu.quota is not None or cpu.burst is not None:
            directory = self._directory("cpu", "a cpu limit")
            period = [("cpu.cfs_period_us", cpu.period)] if cpu.period else []
            quota = [("cpu.cfs_quota_us", cpu.quota or -1)] if cpu.quota is not None else []
            try:
                for name, value in period + quota:
                    f.write(directory, name, value)
            except Invalid:
                # Period and quota limit each other: the other order works when this one does not.
                for name, value in quota + period:
                    f.write(directory, name, value)
            if cpu.burst is not None:
                f.write(directory, "cpu.cfs_burst_us", cpu.burst)
        for name, wanted in (("cpuset.cpus", cpu.cpus), ("cpuset.mems", cpu.mems)):
            if wanted:
                f.write(self._directory("cpuset", "a cpu set"), name, wanted)

    def pids(self) -> list[int]:
        return sorted(set(f.pids(next(iter(self.directories.values())))))

    def freeze(self) -> None:
        self._freeze("FROZEN", timeout_s=10.0)

    def thaw(self) -> None:
        self._freeze("THAWED", timeout_s=10.0)

    def _freeze(self, state: str, *, timeout_s: float) -> None:
        directory = self._directory("freezer", "pausing")
        deadline = time.monotonic() + timeout_s
        while True:
            f.write(directory, "freezer.state", state)
            now = f.read(directory, "freezer.state")
            if now == state or not now:
                return
            if time.monotonic() > deadline:
                f.write(directory, "freezer.state", "THAWED")
                raise TimedOut(f"the processes could not be paused within {timeout_s} s", code="freeze-timed-out")
            time.sleep(0.001)

    def kill(self) -> None:
        # Frozen processes cannot fork while they are being counted; the signal ends them once they are thawed.
        frozen = "freezer" in self._by_controller
        if frozen:
            try:
                self._freeze("FROZEN", timeout_s=0.2)
            except TimedOut:
                frozen = False
        try:
            for _ in range(100):
                found = self.pids()
                for pid in found:
                    try:
                        os.kill(pid, signals.SIGKILL)
                    except ProcessLookupError:
                        pass
                if frozen or not found:
                    return
                time.sleep(0.001)
        finally:
            if frozen:
                self.thaw()

    def stats(self) -> Stats:
        stats = Stats()
        if directory := self._by_controller.get("cpuacct"):
            stats.cpu_total_ns = max(f.read_number(directory, "cpuacct.usage"), 0)
            times = f.read_table(directory, "cpuacct.stat")
            stats.cpu_user_ns = times.get("user", 0) * _NANOSECONDS_PER_TICK
            stats.cpu_system_ns = times.get("system", 0) * _NANOSECONDS_PER_TICK
        if directory := self._by_controller.get("cpu"):
            throttling = f.read_table(directory, "cpu.stat")
            stats.cpu_periods = throttling.get("nr_periods", 0)
            stats.cpu_throttled_periods = throttling.get("nr_throttled", 0)
            stats.cpu_throttled_ns = throttling.get("throttled_time", 0)
        if directory := self._by_controller.get("memory"):
            stats.memory_usage = max(f.read_number(directory, "memory.usage_in_bytes"), 0)
            stats.memory_max_usage = max(f.read_number(directory, "memory.max_usage_in_bytes"), 0)
            limit = f.read_number(directory, "memory.limit_in_bytes")
            stats.memory_limit = limit if limit < _UNLIMITED else -1
            stats.memory_failures = max(f.read_number(directory, "memory.failcnt"), 0)
            stats.memory_stat = f.read_table(directory, "memory.stat")
        if directory := self._by_controller.get("pids"):
            stats.pids_current = max(f.read_number(directory, "pids.current"), 0)
            stats.pids_limit = f.read_number(directory, "pids.max")
        if directory := self._by_controller.get("blkio"):
            stats.io_bytes = _io(f.read(directory, "blkio.throttle.io_service_bytes_recursive"))
            stats.io_operations = _io(f.read(directory, "blkio.throttle.io_serviced_recursive"))
        return stats

    def oom_kills(self) -> int:
        directory = self._by_controller.get("memory")
        return f.read_table(directory, "memory.oom_control").get("oom_kill", 0) if directory else 0

    def remove(self, timeout_s: float = 5.0, *, keep_parent: bool = False) -> None:
        for directory in self.directories.values():
            f.remove(directory, timeout_s, keep_parent=keep_parent)


def _io(text: str) -> dict[tuple[int, int, str], int]:
    counts = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in ("Read", "Write"):
            major, minor = words[0].split(":")
            counts[int(major), int(minor), words[1].lower()] = int(words[2])
    return counts
