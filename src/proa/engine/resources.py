"""Limits: Docker's HostConfig numbers to the runtime-spec's `linux.resources` (config-linux.md, "Control groups")."""

from __future__ import annotations

import os
from typing import Any

from proa.engine.types import HostConfig
from proa.errors import Invalid
from proa.runtime.defaults import SHM_SIZE_BYTES

MIN_MEMORY = 6 << 20  # Docker's minimum: below it a process can hardly be started
CPU_PERIOD_US = 100_000
MIN_NANO_CPUS = 10_000_000
# A container without a limit can exhaust the machine's process table; Podman's default, well above real programs.
DEFAULT_PIDS = 2048


def fill_in(host: HostConfig) -> None:
    """Write down what leaving a member open means, as Docker shows it."""
    if host.memory > 0 and not host.memory_swap:
        host.memory_swap = host.memory * 2
    host.shm_size = host.shm_size or SHM_SIZE_BYTES
    host.ipc_mode = host.ipc_mode or "private"


def linux_resources(host: HostConfig) -> dict[str, Any]:
    """The `resources` object, without devices. Raises Invalid with Docker's words."""
    out: dict[str, Any] = {"pids": {"limit": _pids(host)}}
    memory = _memory(host)
    if memory:
        out["memory"] = memory
    cpu = _cpu(host)
    if cpu:
        out["cpu"] = cpu
    if host.blkio_weight:
        if not 10 <= host.blkio_weight <= 1000:
            raise Invalid("Range of blkio weight is from 10 to 1000", code="limit-invalid")
        out["blockIO"] = {"weight": host.blkio_weight}
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
        out["period"] = host.cpu_period
    if host.cpu_quota:
        out["quota"] = host.cpu_quota
    if host.cpu_shares:
        out["shares"] = host.cpu_shares
    if host.cpuset_cpus:
        out["cpus"] = host.cpuset_cpus
    if host.cpuset_mems:
        out["mems"] = host.cpuset_mems
    return out
