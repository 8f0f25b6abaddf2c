"""Whatever the flags, the runtime takes the generated config; and it never touches what is the host's."""

from __future__ import annotations

from typing import Any

import pytest
from records import container

from proa.engine.joined import Joined
from proa.engine.specgen import oci_config
from proa.engine.types import DeviceMapping, MountPoint, Ulimit
from proa.errors import Invalid
from proa.runtime.plan import Plan, compile_plan

ROOTFS = [{"type": "bind", "source": "/", "options": ["rbind"]}]


def compiled(network: str | None = None, config: dict[str, Any] | None = None, **fields: Any) -> Plan:
    made = container(path="/bin/sh", args=[], config={"hostname": "box", **(config or {})}, **fields)
    joined = Joined(network, made.config.hostname, {})
    return compile_plan(oci_config(made, joined, files={"/etc/hosts": "/x/hosts"}, cgroup="/proa/x"), ROOTFS)


def steps(plan: Plan) -> str:
    return "\n".join(step.describe() for step in plan.steps)


@pytest.mark.parametrize(
    "host",
    [
        {},
        {"privileged": True},
        {"readonly_rootfs": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]},
        {"pid_mode": "host"},
        {"ipc_mode": "host"},
        {"ipc_mode": "none"},
        {"cgroupns_mode": "host"},
        {"uts_mode": "host"},
        {"pid_mode": "host", "ipc_mode": "host", "uts_mode": "host", "cgroupns_mode": "host"},
        {"memory": 64 << 20, "nano_cpus": 10**9, "pids_limit": -1, "cpu_shares": 2, "blkio_weight": 500},
        {"sysctls": {"net.ipv4.ip_forward": "1"}},
        {"devices": [DeviceMapping(path_on_host="/dev/null", path_in_container="/dev/x", cgroup_permissions="r")]},
        {"ulimits": [Ulimit(name="nofile", soft=10, hard=20)], "oom_score_adj": 500, "init": True},
        {"security_opt": ["seccomp=unconfined"]},
        {"security_opt": ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']},
        {"shm_size": 4096, "group_add": ["audio"], "console_size": (24, 80)},
    ],
)
def test_the_runtime_takes_it(host: dict[str, Any]) -> None:
    mounts = [
        MountPoint(type="bind", source="/a", destination="/data", rw=False, propagation="rslave"),
        MountPoint(type="tmpfs", source="", destination="/scratch", mode="size=1m,exec"),
    ]
    for tty in (False, True):
        compiled(host=host, mounts=mounts, config={"tty": tty, "domainname": "lan", "user": "me:us"})


@pytest.mark.parametrize("network", ["host", "/proc/self/ns/net"])
def test_on_the_network_of_others(network: str) -> None:
    assert "net.ipv4" not in steps(compiled(network))
    with pytest.raises(Invalid, match="net"):
        compiled("host", host={"sysctls": {"net.ipv4.ip_forward": "1"}})


def test_the_hosts_name_is_not_changed() -> None:
    assert "host name box" in steps(compiled(config={"domainname": "lan"}))
    assert "host name" not in steps(compiled(config={"domainname": "lan"}, host={"uts_mode": "host"}))


@pytest.mark.parametrize("sysctl", ["kernel.core_pattern", "vm.swappiness", "net/../kernel/core_pattern", "../x"])
def test_sysctls_of_the_host_are_refused(sysctl: str) -> None:
    with pytest.raises(Invalid, match="sysctl"):
        compiled(host={"sysctls": {sysctl: "1"}})
