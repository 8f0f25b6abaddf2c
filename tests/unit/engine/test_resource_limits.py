from __future__ import annotations

import os
from typing import Any

import pytest

from proa.engine.resources import DEFAULT_PIDS, linux_resources
from proa.engine.types import HostConfig, ThrottleDevice, Ulimit, WeightDevice
from proa.errors import Invalid

MIB = 1 << 20


@pytest.mark.parametrize(
    ("asked", "part", "expected"),
    [
        ({}, "pids", {"limit": DEFAULT_PIDS}),
        ({"pids_limit": 7}, "pids", {"limit": 7}),
        ({"pids_limit": 0}, "pids", {"limit": -1}),
        ({"pids_limit": -1}, "pids", {"limit": -1}),
        ({}, "memory", None),
        ({"memory": 64 * MIB}, "memory", {"limit": 64 * MIB, "swap": 128 * MIB}),
        ({"memory": 64 * MIB, "memory_swap": -1}, "memory", {"limit": 64 * MIB, "swap": -1}),
        ({"memory": 64 * MIB, "memory_swap": 64 * MIB}, "memory", {"limit": 64 * MIB, "swap": 64 * MIB}),
        ({"memory_reservation": 8 * MIB}, "memory", {"reservation": 8 * MIB}),
        ({"memory_swappiness": -1}, "memory", None),
        ({"memory_swappiness": 0}, "memory", {"swappiness": 0}),
        ({"oom_kill_disable": True}, "memory", {"disableOOMKiller": True}),
        ({}, "cpu", None),
        ({"nano_cpus": 10**9}, "cpu", {"period": 100_000, "quota": 100_000}),
        ({"nano_cpus": 10**7}, "cpu", {"period": 100_000, "quota": 1000}),
        ({"cpu_period": 50_000, "cpu_quota": 25_000}, "cpu", {"period": 50_000, "quota": 25_000}),
        ({"cpu_shares": 512, "cpuset_cpus": "0-1", "cpuset_mems": "0"}, "cpu",
         {"shares": 512, "cpus": "0-1", "mems": "0"}),
        ({"blkio_weight": 10}, "blockIO", {"weight": 10}),
    ],
)  # fmt: skip
def test_limits(asked: dict[str, Any], part: str, expected: dict[str, Any] | None) -> None:
    assert linux_resources(HostConfig(**asked)).get(part) == expected


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"memory": 6 * MIB - 1}, "Minimum memory limit allowed is 6MB"),
        ({"memory": -2}, "Minimum memory limit allowed is 6MB"),
        ({"memory": 64 * MIB, "memory_swap": 32 * MIB}, "larger than memory limit"),
        ({"memory_swap": 32 * MIB}, "always set the Memory limit"),
        ({"memory": 64 * MIB, "memory_reservation": 65 * MIB}, "less than memory reservation"),
        ({"memory_swappiness": 101}, "swappiness range is 0-100"),
        ({"nano_cpus": 10**9, "cpu_quota": 1}, "Nano CPUs and CPU Period/Quota"),
        ({"nano_cpus": -1}, "range of CPUs is from 0.01"),
        ({"nano_cpus": 1000}, "range of CPUs is from 0.01"),  # its quota of 0 would mean: no limit at all
        ({"nano_cpus": ((os.cpu_count() or 1) + 1) * 10**9}, "range of CPUs is from 0.01"),
        ({"blkio_weight": 9}, "from 10 to 1000"),
        ({"blkio_weight": 1001}, "from 10 to 1000"),
        ({"blkio_weight_device": [WeightDevice(path="/dev/null", weight=5)]}, "from 10 to 1000"),
        ({"blkio_weight_device": [WeightDevice(path="/dev/null", weight=500)]}, "/dev/null is no block device"),
        ({"blkio_device_read_bps": [ThrottleDevice(path="/dev/absent", rate=1)]}, "no such device: /dev/absent"),
        ({"cpu_period": 999}, "CPU cfs period"),
        ({"cpu_quota": 999}, "CPU cfs quota"),
        ({"cpu_shares": -1}, "invalid CPU shares"),
        ({"cpuset_cpus": "0-"}, "Invalid value 0- for cpuset cpus"),
        ({"cpuset_cpus": "1-0"}, "Invalid value 1-0 for cpuset cpus"),
        ({"cpuset_mems": "4000"}, "Requested memory nodes are not available - requested 4000"),
        ({"oom_score_adj": 1001}, "range for oom score adj"),
        ({"shm_size": -1}, "SHM size"),
        ({"isolation": "hyperv"}, "invalid isolation"),
        ({"ulimits": [Ulimit(name="nosuch", soft=1, hard=1)]}, "invalid ulimit type: nosuch"),
        ({"ulimits": [Ulimit(name="core", soft=2, hard=1)]}, "soft limit must be less than or equal"),
    ],
)
def test_limits_that_make_no_sense(asked: dict[str, Any], text: str) -> None:
    with pytest.raises(Invalid, match=text):
        linux_resources(HostConfig(**asked))
