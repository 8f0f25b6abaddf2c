"""config.json to steps: order, refusals, description. No privileges needed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from proa.errors import Invalid, ProaError, Unsupported
from proa.runtime import defaults
from proa.runtime.plan import Plan, compile_exec_plan, compile_plan

ROOTFS = [{"type": "overlay", "source": "overlay", "options": ["lowerdir=/l", "upperdir=/u", "workdir=/w"]}]


def config(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {"args": ["true"], "cwd": "/", "env": ["A=1"], "capabilities": defaults.capabilities()},
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": defaults.mounts(),
        "linux": {
            "namespaces": defaults.namespaces(),
            "maskedPaths": defaults.masked_paths(),
            "readonlyPaths": list(defaults.READONLY_PATHS),
            "sysctl": dict(defaults.NETWORK_SYSCTLS),
        },
        "annotations": {"proa.seccomp": "default"},
    }
    for path, value in changes.items():
        target = made
        *parents, last = path.split("__")
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    return made


def names(plan: Plan) -> list[str]:
    return [type(step).__name__ for step in plan.steps]


def test_order_of_steps() -> None:
    plan = compile_plan(
        config(process__terminal=True, process__rlimits=[{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}]), ROOTFS
    )
    order = names(plan)
    wanted = [
        "SeparateMounts", "MountRoot", "Mount", "MakeDevices", "LinkDevices", "PivotRoot", "ReopenNull", "ResolveUser",
        "CreateWorkingDirectory", "OpenTerminal", "OwnStreams", "SetNames", "SetSysctls", "ReadonlyPaths", "MaskPaths",
        "SetLimits", "JoinKeyring", "CloseFiles", "EnterWorkingDirectory", "FilterSystemCalls", "DropBounding",
        "BecomeUser", "Execute",
    ]  # fmt: skip
    positions = [order.index(name) for name in wanted]
    assert positions == sorted(positions)
    assert order[-1] == "Execute"
    assert plan.terminal
    assert plan.cgroup_namespace
    assert all(isinstance(line, str) and line for line in plan.describe())


def test_filter_comes_last_with_no_new_privileges() -> None:
    order = names(compile_plan(config(process__noNewPrivileges=True), ROOTFS))
    assert order[-2:] == ["FilterSystemCalls", "Execute"]
    assert order.index("NoNewPrivileges") < order.index("CloseFiles")


def test_readonly_root_is_remounted_after_everything_was_made_in_it() -> None:
    order = names(compile_plan(config(root={"readonly": True}), ROOTFS))
    assert order.index("CreateWorkingDirectory") < order.index("RemountReadonly") < order.index("MaskPaths")


def test_exec_plan_has_no_mounts() -> None:
    plan = compile_exec_plan(config(), {"args": ["ls"], "terminal": True, "user": {"username": "x"}})
    assert names(plan)[:3] == ["ResolveUser", "OpenTerminal", "OwnStreams"]
    assert not {"Mount", "PivotRoot", "MaskPaths", "SetSysctls"} & set(names(plan))
    assert "FilterSystemCalls" in names(plan)


def test_the_config_is_not_changed() -> None:
    given = config()
    before = copy.deepcopy(given)
    compile_plan(given, ROOTFS)
    assert given == before


def bind(destination: str, source: str = "/tmp", *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", *options]}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"process__args": []}, Invalid),
        ({"process__args": [""]}, Invalid),
        ({"process__args": ["a\0b"]}, Invalid),
        ({"process__env": ["A=\0"]}, Invalid),
        ({"process__cwd": "relative"}, Invalid),
        ({"process__user": {"uid": -1}}, Invalid),
        ({"process__user": {"uid": 4294967295}}, Invalid),
        ({"process__user": {"uid": "0"}}, Invalid),
        ({"process__capabilities": {"bounding": ["CAP_MAGIC"]}}, Invalid),
        ({"process__capabilities": {"effective": ["CAP_CHOWN"]}}, Invalid),
        ({"process__capabilities": {"ambient": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]}}, Invalid),
        ({"process__rlimits": [{"type": "RLIMIT_MAGIC", "hard": 0, "soft": 0}]}, Invalid),
        ({"process__rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 2}]}, Invalid),
        ({"process__apparmorProfile": "x"}, Unsupported),
        ({"process__selinuxLabel": "x"}, Unsupported),
        ({"process__scheduler": {"policy": "SCHED_MAGIC"}}, Invalid),
        ({"process__scheduler": {"policy": "SCHED_FIFO", "flags": ["SCHED_FLAG_MAGIC"]}}, Invalid),
        ({"process__ioPriority": {"class": "IOPRIO_CLASS_MAGIC"}}, Invalid),
        ({"linux__timeOffsets": {"monotonic": {"secs": 1}}}, Invalid),
        ({"linux__intelRdt": {"closID": "x"}}, Unsupported),
        ({"hooks": {"prestart": [{"path": "/bin/true"}]}}, Unsupported),
        ({"linux__uidMappings": [{"hostID": 0}]}, Invalid),
        ({"linux__uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}, Invalid),
        ({"linux__namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "user"}]}, Invalid),
        ({"linux__namespaces": [{"type": "pid"}]}, Invalid),
        ({"linux__namespaces": [{"type": "mount"}, {"type": "mount"}]}, Invalid),
        ({"linux__namespaces": [{"type": "mount"}, {"type": "magic"}]}, Invalid),
        ({"linux__rootfsPropagation": "magic"}, Invalid),
        ({"hostname": "a\nb"}, Invalid),
        ({"hostname": "x" * 65}, Invalid),
        ({"linux__maskedPaths": ["relative"]}, Invalid),
        ({"linux__maskedPaths": ["/a/../b"]}, Invalid),
        ({"annotations": {"proa.seccomp": "magic"}}, Invalid),
        ({"linux__seccomp": {"defaultAction": "X"}}, Invalid),
        ({"mounts": [bind("/proc")]}, Invalid),
        ({"mounts": [bind("/proc/self/attr")]}, Invalid),
        ({"mounts": [bind("/proc/sys/kernel")]}, Invalid),
        ({"mounts": [bind("/")]}, Invalid),
        ({"mounts": [bind("/a/../b")]}, Invalid),
        ({"mounts": [bind("relative")]}, Invalid),
        ({"mounts": [bind("/a//b")]}, Invalid),
        ({"mounts": [bind("/a", "relative")]}, Invalid),
        ({"mounts": [bind("/a", "/tmp", "size=5")]}, Invalid),
        ({"mounts": [{"destination": "/x", "type": "proc"}]}, Invalid),
        ({"mounts": [{"destination": "/proc", "type": "tmpfs"}]}, Invalid),
        ({"mounts": [{"destination": "/x", "type": "a b", "source": "/dev/sda"}]}, Invalid),
        ({"mounts": [{"destination": "/x", "type": "tmpfs", "options": ["size=" + "1" * 300]}]}, Invalid),
        ({"linux__devices": [{"path": "dev/x", "type": "c"}]}, Invalid),
        ({"linux__devices": [{"path": "/dev/../x", "type": "c"}]}, Invalid),
        ({"linux__devices": [{"path": "/dev/x", "type": "z"}]}, Invalid),
    ],
)
def test_refused(changes: dict[str, Any], kind: type[ProaError]) -> None:
    with pytest.raises(kind):
        compile_plan(config(**changes), ROOTFS)


@pytest.mark.parametrize(
    "sysctl",
    [
        {"kernel.core_pattern": "|/x"},
        {"kernel.shm_rmid_forced": "1\nkernel.core_pattern=|/x"},
        {"kernel/core_pattern": "x"},
        {"kernel.hostname": "x"},
        {"net.../kernel/core_pattern": "x"},
        {"net/../kernel/core_pattern": "x"},
        {"vm.overcommit_memory": "1"},
        {"net.": "1"},
        {"": "1"},
        {"kernel.shm_rmid_forced ": "1"},
        {"user.max_user_namespaces": "1"},
    ],
)
def test_sysctls_refused(sysctl: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        compile_plan(config(linux__sysctl=sysctl), ROOTFS)


def test_sysctls_need_the_namespace_they_belong_to() -> None:
    """CVE-2022-0532: host network and a net sysctl."""
    for kinds, sysctl in (
        (["mount", "ipc", "uts"], {"net.ipv4.ip_forward": "0"}),
        (["mount", "network", "uts"], {"kernel.sem": "1"}),
        (["mount", "network", "uts"], {"fs.mqueue.msg_max": "1"}),
    ):
        namespaces = [{"type": kind} for kind in kinds]
        with pytest.raises(Invalid, match="namespace of the container's own"):
            compile_plan(config(linux__namespaces=namespaces, linux__sysctl=sysctl), ROOTFS)


@pytest.mark.parametrize(
    "rootfs", [[], ROOTFS * 2, [{"type": "ext4", "source": "/dev/sda"}], [{"type": "bind", "source": "/a\0"}], [{}]]
)
def test_root_mounts_refused(rootfs: Any) -> None:
    with pytest.raises(ProaError):
        compile_plan(config(), rootfs)


def test_objects_serve_as_root_mounts() -> None:
    class Mount:
        type = "bind"
        source = "/x"
        options = ("rbind",)

    assert "bind /x as the root" in compile_plan(config(), [Mount()]).describe()[1]


def test_binding_dev_makes_no_devices() -> None:
    order = names(compile_plan(config(mounts=[bind("/dev", "/dev")]), ROOTFS))
    assert "MakeDevices" not in order
    assert "LinkDevices" not in order


def test_lxcfs_files_may_be_bound() -> None:
    compile_plan(config(mounts=[*defaults.mounts(), bind("/proc/meminfo", "/var/lib/lxcfs/proc/meminfo")]), ROOTFS)
