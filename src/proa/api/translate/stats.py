"""Resource usage in the shape clients compute percentages from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proa.engine.types import NEVER

Sample = Mapping[str, Any]
_BLKIO = (
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)


def stats(container_id: str, name: str, sample: Sample, before: Sample | None) -> dict[str, Any]:
    """One object of `GET /containers/{id}/stats`; `before` is the sample a CPU share is computed against."""
    out = {
        "name": "/" + name,
        "id": container_id,
        "read": sample.get("read", NEVER),
        "preread": (before or {}).get("read", NEVER),
        "num_procs": 0,
        "pids_stats": _pids(sample),
        "cpu_stats": _cpu(sample),
        "precpu_stats": _cpu(before or {}),
        "memory_stats": _memory(sample),
        "blkio_stats": dict.fromkeys(_BLKIO) | dict(sample.get("blkio") or {}),
        "storage_stats": {},
    }
    if sample.get("networks"):
        out["networks"] = sample["networks"]
    return out


def _pids(sample: Sample) -> dict[str, int]:
    if not sample:
        return {}
    limit = {"limit": sample["pids_limit"]} if sample.get("pids_limit") else {}
    return {"current": sample.get("pids", 0), **limit}


def _cpu(sample: Sample) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "total_usage": sample.get("cpu_ns", 0),
        "usage_in_kernelmode": sample.get("cpu_kernel_ns", 0),
        "usage_in_usermode": sample.get("cpu_user_ns", 0),
    }
    if sample.get("cpu_each_ns"):
        usage["percpu_usage"] = sample["cpu_each_ns"]
    out: dict[str, Any] = {
        "cpu_usage": usage,
        "throttling_data": {
            "periods": sample.get("cpu_periods", 0),
            "throttled_periods": sample.get("cpu_throttled_periods", 0),
            "throttled_time": sample.get("cpu_throttled_ns", 0),
        },
    }
    if "system_ns" in sample:
        out |= {"system_cpu_usage": sample["system_ns"], "online_cpus": sample.get("cpus", 0)}
    return out


def _memory(sample: Sample) -> dict[str, Any]:
    if not sample:
        return {}
    out = {
        "usage": sample.get("memory", 0),
        "stats": dict(sample.get("memory_stats") or {}),
        "limit": sample.get("memory_limit", 0),
    }
    if sample.get("memory_max"):
        out["max_usage"] = sample["memory_max"]
    return out
