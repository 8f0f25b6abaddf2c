"""Limits: Docker's HostConfig numbers to the runtime-spec's `linux.resources` (config-linux.md, "Control groups")."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from proa.engine.devices import block_device
from proa.engine.types import HostConfig
from proa.errors import Invalid, Unsupported
from proa.runtime.defaults import SHM_SIZE_BYTES

MIN_MEMORY = 6 << 20  # Docker's minimum: below it a process can hardly be started
CPU_PERIOD_US = 100_000
MIN_NANO_CPUS = 10_000_000
# A container without a limit can exhaust the machine's process table; Podman's default, well above real programs.
DEFAULT_PIDS = 2048
ULIMITS = frozenset(
    (
        *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice"),
        *("nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
    )
)


def fill_in(host: HostConfig) -> None:
    """Write down what leaving a member open means, as Docker shows it."""
    if host.memory > 0 and not host.memory_swap:
        host.memory_swap = host.memory * 2
    host.shm_size = host.shm_size or SHM_SIZE_BYTES
    host.ipc_mode = host.ipc_mode or "private"
    host.cgroupns_mode = host.cgroupns_mode or "private"
    # Clients send 0 for what was not given, -1 for no limit.
    host.pids_limit = host.pids_limit or DEFAULT_PIDS
    if host.memory_swappiness == -1:
        host.memory_swappiness = None


def linux_resources(host: HostConfig) -> dict[str, Any]:
    """The `resources` object, without devices. Raises Invalid with Docker's words."""
    out: dict[str, Any] = {"pids": {"limit": _pids(host)}}
    memory = _memory(host)
    if memory:
        out["memory"] = memory
    cpu = _cpu(host)
    if cpu:
        out["cpu"] = cpu
    block = _block_io(host)
    if block:
        out["blockIO"] = block
    _check_others(host)
    return out


def _block_io(host: HostConfig) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if host.blkio_weight:
        if not 10 <= host.blkio_weight <= 1000:
            raise Invalid("Range of blkio weight is from 10 to 1000", code="limit-invalid")
        out["weight"] = host.blkio_weight
    if host.blkio_weight_device:
        if any(not 10 <= d.weight <= 1000 for d in host.blkio_weight_device):
            raise Invalid("Range of blkio weight is from 10 to 1000", code="limit-invalid")
        devices = [{**block_device(d.path), "weight": d.weight} for d in host.blkio_weight_device]
        out["weightDevice"] = devices
    for key, limits in (
        ("throttleReadBpsDevice", host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", host.blkio_device_write_iops),
    ):
        if limits:
            out[key] = [{**block_device(limit.path), "rate": limit.rate} for limit in limits]
    return out


def _check_others(host: HostConfig) -> None:
    """What is no limit of a cgroup, or none that can be set. Raises Invalid, Unsupported."""
    if not -1000 <= host.oom_score_adj <= 1000:
        raise Invalid(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]", code="limit-invalid"
        )
    if host.shm_size < 0:
        raise Invalid("SHM size can not be less than 0", code="limit-invalid")
    if host.cpu_realtime_period or host.cpu_realtime_runtime:
        raise Unsupported("limits of CPU real-time scheduling are not supported", code="limit-unsupported")
    if host.isolation not in ("", "default"):
        raise Invalid(f"invalid isolation: {host.isolation[:60]}; only default is one on Linux", code="isolation")
    if host.storage_opt:
        raise Unsupported(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option", code="storage-opt"
        )
    for limit in host.ulimits or []:
        if limit.name not in ULIMITS:
            raise Invalid(f"invalid ulimit type: {limit.name[:60]}", code="ulimit-invalid")
        if -1 != limit.hard < limit.soft or (limit.soft == -1 != limit.hard):
            raise Invalid(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}",
                code="ulimit-invalid",
            )


def limit_warnings(host: HostConfig) -> list[str]:
    """What a user should know of the limits, in Docker's words."""
    out = []
    if host.oom_kill_disable and not host.memory:
        out.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
            "running out of resources."
        )
    return out


def _pids(host: HostConfig) -> int:
    if host.pids_limit is None:
        return DEFAULT_PIDS
    return -1 if host.pids_limit <= 0 else host.pids_limit


def _memory(host: HostConfig) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if host.memory:
        if host.memory != -1 and host.memory < MIN_MEMORY:
            raise Invalid("Minimum memory limit allowed is 6MB", code="limit-invalid")
        out["limit"] = max(host.memory, -1)
        # As Docker: as much swap again, unless said otherwise.
        out["swap"] = max(host.memory_swap or host.memory * 2, -1)
        if host.memory_swap > 0 and host.memory_swap < host.memory:
            raise Invalid(
                "Minimum memoryswap limit should be larger than memory limit, see usage", code="limit-invalid"
            )
    elif host.memory_swap > 0:
        raise Invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage", code="limit-invalid"
        )
    if host.memory_reservation:
        if 0 < host.memory < host.memory_reservation:
            raise Invalid(
                "Minimum memory limit can not be less than memory reservation limit, see usage", code="limit-invalid"
            )
        out["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        if host.memory_swappiness > 100:
            raise Invalid("Invalid value: valid memory swappiness range is 0-100", code="limit-invalid")
        out["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        out["disableOOMKiller"] = True
    return out


def _check_set(wanted: str, key: str, what: str, online: str) -> None:
    """`0-2,4` must be one, and what it names must be there."""
    asked = _numbers(wanted)
    if asked is None:
        raise Invalid(f"Invalid value {wanted[:80]} for cpuset {key}", code="limit-invalid")
    try:
        there = Path(online).read_text(encoding="ascii").strip()
    except OSError:
        there = "0"
    if not asked <= (_numbers(there) or set()):
        raise Invalid(
            f"Requested {what} are not available - requested {wanted[:80]}, available: {there}", code="limit-invalid"
        )


def _numbers(text: str) -> set[int] | None:
    found: set[int] = set()
    for part in text.split(","):
        first, mark, last = part.partition("-")
        ends = (first, last if mark else first)
        if not all(e.isascii() and e.isdigit() and len(e) < 6 for e in ends) or int(ends[0]) > int(ends[1]):
            return None
        found |= set(range(int(ends[0]), int(ends[1]) + 1))
    return found


def _cpu(host: HostConfig) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if host.nano_cpus:
        if host.cpu_quota or host.cpu_period:
            raise Invalid(
                "Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set", code="limit-invalid"
            )
        cpus = os.cpu_count() or 1
        # The kernel takes no quota below a millisecond.
        if not MIN_NANO_CPUS <= host.nano_cpus <= cpus * 10**9:
            raise Invalid(
                f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available",
                code="limit-invalid",
            )
        out["period"] = CPU_PERIOD_US
        out["quota"] = host.nano_cpus * CPU_PERIOD_US // 10**9
    if host.cpu_period:
        if not 1000 <= host.cpu_period <= 1_000_000:
            raise Invalid(
                "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
                code="limit-invalid",
            )
        out["period"] = host.cpu_period
    if host.cpu_quota:
        if 0 < host.cpu_quota < 1000:
            raise Invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)", code="limit-invalid")
        out["quota"] = host.cpu_quota
    if host.cpu_shares < 0:
        raise Invalid(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer", code="limit-invalid")
    if host.cpu_shares:
        out["shares"] = host.cpu_shares
    for key, wanted, what, online in (
        ("cpus", host.cpuset_cpus, "CPUs", "/sys/devices/system/cpu/online"),
        ("mems", host.cpuset_mems, "memory nodes", "/sys/devices/system/node/online"),
    ):
        if wanted:
            _check_set(wanted, key, what, online)
            out[key] = wanted
    return out
