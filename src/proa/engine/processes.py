"""Look at what a container uses from outside, through the host's /proc and cgroup files.

Sources: proc(5), cgroups(7), kernel Documentation/admin-guide/cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from proa.engine.clock import now

CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 62  # cgroup v1 shows "no limit" as a number near 2**63


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _cgroup_directories(pid: int) -> dict[str, Path]:
    """Controller -> the cgroup directory of a process; the unified hierarchy is ""."""
    out = {}
    for line in _read(Path(f"/proc/{pid}/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            out[controller] = CGROUPS / controller / path.lstrip("/")
    if "" in out:
        unified = CGROUPS / "unified"
        out[""] = (unified if unified.is_dir() else CGROUPS) / out[""].relative_to(CGROUPS)
    return out


def _number(path: Path) -> int:
    text = _read(path).strip()
    return int(text) if text.isascii() and text.isdigit() else 0


def _table(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _read(path).splitlines())
    return {p[0]: int(p[1]) for p in pairs if len(p) == 2 and p[1].isdigit()}


def usage_sample(pid: int, *, own_cgroup: bool = True) -> dict[str, Any]:
    """What the container of init `pid` uses now: nanoseconds of CPU, bytes of memory, processes, network counters.

    own_cgroup: without one only the network is counted.
    """
    groups = _cgroup_directories(pid) if own_cgroup else {"": Path("/proc/none")}
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    out: dict[str, Any] = {"read": now(), "cpus": os.cpu_count() or 1, "system_ns": _system_ns(), "memory_limit": host}
    if "memory" in groups:
        memory, account, pids = groups["memory"], groups.get("cpuacct", CGROUPS), groups.get("pids", CGROUPS)
        out["memory"] = _number(memory / "memory.usage_in_bytes")
        out["memory_max"] = _number(memory / "memory.max_usage_in_bytes")
        out["memory_stats"] = _table(memory / "memory.stat")
        limit = _number(memory / "memory.limit_in_bytes")
        ticks = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        split = _table(account / "cpuacct.stat")
        out["cpu_ns"] = _number(account / "cpuacct.usage")
        out["cpu_user_ns"], out["cpu_kernel_ns"] = split.get("user", 0) * ticks, split.get("system", 0) * ticks
        out["cpu_each_ns"] = [int(n) for n in _read(account / "cpuacct.usage_percpu").split()]
        throttled = _table(groups.get("cpu", CGROUPS) / "cpu.stat")
        out["cpu_throttled_ns"] = throttled.get("throttled_time", 0)
        if "blkio" in groups:
            out["blkio"] = _block_io_v1(groups["blkio"])
    else:
        group = pids = groups.get("", CGROUPS)
        out["memory"] = _number(group / "memory.current")
        out["memory_stats"] = _table(group / "memory.stat")
        limit = _number(group / "memory.max")
        throttled = _table(group / "cpu.stat")
        for key, source in (("cpu_ns", "usage_usec"), ("cpu_user_ns", "user_usec"), ("cpu_kernel_ns", "system_usec")):
            out[key] = throttled.get(source, 0) * 1000
        out["cpu_throttled_ns"] = throttled.get("throttled_usec", 0) * 1000
        out["blkio"] = _block_io_v2(group)
    if 0 < limit < _NO_LIMIT:
        out["memory_limit"] = min(limit, host)
    out["cpu_periods"], out["cpu_throttled_periods"] = throttled.get("nr_periods", 0), throttled.get("nr_throttled", 0)
    out["pids"], out["pids_limit"] = _number(pids / "pids.current"), _number(pids / "pids.max")
    out["networks"] = _interfaces(pid)
    return out


def _block_io_v1(group: Path) -> dict[str, list[dict[str, Any]]]:
    """`8:0 Read 4096` lines as Docker's entries; the file's own total, a line of two words, is left out."""
    out = {}
    for key, name in (("io_service_bytes_recursive", "io_service_bytes"), ("io_serviced_recursive", "io_serviced")):
        words = [line.split() for line in _read(group / f"blkio.throttle.{name}_recursive").splitlines()]
        out[key] = [_io_entry(w[0], w[1], int(w[2])) for w in words if len(w) == 3]
    return out


def _block_io_v2(group: Path) -> dict[str, list[dict[str, Any]]]:
    """`8:0 rbytes=4096 wbytes=0 rios=1 …` lines as Docker's entries."""
    out: dict[str, list[dict[str, Any]]] = {"io_service_bytes_recursive": [], "io_serviced_recursive": []}
    names = {
        "rbytes": ("io_service_bytes_recursive", "read"),
        "wbytes": ("io_service_bytes_recursive", "write"),
        "rios": ("io_serviced_recursive", "read"),
        "wios": ("io_serviced_recursive", "write"),
    }
    for line in _read(group / "io.stat").splitlines():
        device, *pairs = line.split()
        for name, _, value in (pair.partition("=") for pair in pairs):
            if name in names and value.isdecimal():
                key, operation = names[name]
                out[key].append(_io_entry(device, operation, int(value)))
    return out


def _io_entry(device: str, operation: str, value: int) -> dict[str, Any]:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor or 0), "op": operation, "value": value}


def _system_ns() -> int:
    """CPU time of the whole host, all states, as Docker sums it from /proc/stat."""
    fields = _read(Path("/proc/stat")).partition("\n")[0].split()[1:8]
    return sum(map(int, fields)) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


_COUNTERS = ("bytes", "packets", "errors", "dropped")


def _interfaces(pid: int) -> dict[str, dict[str, int]]:
    out = {}
    for line in _read(Path(f"/proc/{pid}/net/dev")).splitlines()[2:]:
        name, _, rest = line.partition(":")
        values = [int(v) for v in rest.split()]
        if name.strip() != "lo" and len(values) >= 12:
            received = {f"rx_{c}": v for c, v in zip(_COUNTERS, values[:4], strict=True)}
            sent = {f"tx_{c}": v for c, v in zip(_COUNTERS, values[8:12], strict=True)}
            out[name.strip()] = {**received, **sent}
    return out
