from __future__ import annotations

from typing import Any

import pytest

from proa.engine.types import HostConfig, RestartPolicy, UpdateRequest
from proa.engine.updates import updated
from proa.errors import Invalid

MIB = 1 << 20


def test_only_what_is_given_changes() -> None:
    host = HostConfig(memory=64 * MIB, cpu_shares=512, pids_limit=10, restart_policy=RestartPolicy(name="always"))
    found = updated(host, UpdateRequest(cpu_shares=256))
    assert (found.memory, found.cpu_shares, found.pids_limit, found.restart_policy.name) == (
        64 * MIB,
        256,
        10,
        "always",
    )
    found = updated(host, UpdateRequest(pids_limit=0, restart_policy=RestartPolicy(name="no")))
    assert (found.pids_limit, found.restart_policy.name) == (0, "no")
    assert updated(host, UpdateRequest(restart_policy=RestartPolicy(name=""))).restart_policy.name == "always"


@pytest.mark.parametrize(
    ("host", "request_", "words"),
    [
        ({"memory": 64 * MIB, "memory_swap": 128 * MIB}, {"memory": 256 * MIB}, "already set memoryswap limit"),
        ({"nano_cpus": 10**9}, {"cpu_quota": 50_000}, "CPU Quota cannot be updated as NanoCPUs"),
        ({"cpu_quota": 50_000}, {"nano_cpus": 10**9}, "Nano CPUs cannot be updated as CPU Quota"),
        ({}, {"memory": 1000}, "Minimum memory limit"),
        ({"auto_remove": True}, {"restart_policy": RestartPolicy(name="always")}, "AutoRemove is enabled"),
        ({}, {"restart_policy": RestartPolicy(name="bogus")}, "unknown policy 'bogus'"),
    ],
)
def test_what_cannot_be_changed_so(host: dict[str, Any], request_: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        updated(HostConfig(**host), UpdateRequest(**request_))


def test_no_limit_on_memory_means_none_on_swap() -> None:
    found = updated(HostConfig(memory=64 * MIB, memory_swap=128 * MIB), UpdateRequest(memory=-1))
    assert (found.memory, found.memory_swap) == (-1, -1)
