"""A container's record to the OCI config its monitor gets."""

from __future__ import annotations

from typing import Any

import pytest
from records import container

from proa.engine.joined import Joined
from proa.engine.security import resolve_security
from proa.engine.specgen import exec_process, oci_config
from proa.engine.types import DeviceMapping, ExecRequest, HostConfig, MountPoint, Ulimit
from proa.errors import Invalid, Unsupported
from proa.runtime import defaults

OWN = Joined(None, "ship", {})
FOURTEEN = 14


def config(network: Joined = OWN, files: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    fields.setdefault("path", "sh")
    fields.setdefault("args", ["-c", "true"])
    return oci_config(container(**fields), network, files=files or {}, cgroup="/proa/x")


def test_by_default() -> None:
    found = config(config={"env": ["A=1"], "hostname": "ship"})
    process, linux = found["process"], found["linux"]
    assert (process["args"], process["cwd"], process["terminal"]) == (["sh", "-c", "true"], "/", False)
    assert process["env"] == ["HOSTNAME=ship", "A=1"]
    assert process["user"]["username"] == "0"
    assert process["noNewPrivileges"] is False
    assert "rlimits" not in process
    for kind in ("bounding", "effective", "permitted"):
        assert len(process["capabilities"][kind]) == FOURTEEN
    assert not process["capabilities"].get("inheritable")
    assert not process["capabilities"].get("ambient")
    assert {n["type"] for n in linux["namespaces"]} == {"mount", "pid", "uts", "ipc", "cgroup", "network"}
    assert linux["maskedPaths"] == defaults.masked_paths()
    assert linux["readonlyPaths"] == list(defaults.READONLY_PATHS)
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert linux["sysctl"] == dict(defaults.NETWORK_SYSCTLS)
    assert found["annotations"] == {"proa.seccomp": "default"}
    assert found["root"]["readonly"] is False
    assert [m["destination"] for m in found["mounts"]] == [m["destination"] for m in defaults.mounts()]


def test_privileged() -> None:
    found = config(host={"privileged": True})
    assert found["process"]["capabilities"]["bounding"] == list(defaults.ALL_CAPABILITIES)
    assert found["annotations"] == {}
    assert "seccomp" not in found["linux"]
    assert (found["linux"]["maskedPaths"], found["linux"]["readonlyPaths"]) == ([], [])
    assert found["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "ro" not in next(m for m in found["mounts"] if m["destination"] == "/sys")["options"]


@pytest.mark.parametrize(
    ("host", "gone"),
    [
        ({"pid_mode": "host"}, "pid"),
        ({"uts_mode": "host"}, "uts"),
        ({"ipc_mode": "host"}, "ipc"),
        ({"cgroupns_mode": "host"}, "cgroup"),
    ],
)
def test_namespaces_of_the_host(host: dict[str, Any], gone: str) -> None:
    assert gone not in {n["type"] for n in config(host=host)["linux"]["namespaces"]}


def test_networks() -> None:
    namespaces = config(Joined("host", "h", {}))["linux"]["namespaces"]
    assert not [n for n in namespaces if n["type"] == "network"]
    namespaces = config(Joined("/proc/1/ns/net", "h", {}))["linux"]["namespaces"]
    assert {"type": "network", "path": "/proc/1/ns/net"} in namespaces
    assert config(Joined("host", "h", {}))["linux"]["sysctl"] == {}
    assert config(host={"sysctls": {"net.x": "1"}})["linux"]["sysctl"]["net.x"] == "1"


@pytest.mark.parametrize(
    ("host", "error"),
    [
        ({"pid_mode": "container:x"}, Unsupported),
        ({"ipc_mode": "container:x"}, Unsupported),
        ({"cgroupns_mode": "x"}, Invalid),
        ({"device_cgroup_rules": ["c 1:3 everything"]}, Invalid),
        ({"devices": [DeviceMapping(path_on_host="/no/such/device")]}, Invalid),
        ({"devices": [DeviceMapping(path_on_host="/etc/passwd")]}, Invalid),
        ({"cap_add": ["NOSUCH"]}, Invalid),
        ({"security_opt": ["nosuch=1"]}, Invalid),
        ({"memory": 1}, Invalid),
    ],
)
def test_what_cannot_be(host: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        config(host=host)


def test_devices() -> None:
    found = config(host={"devices": [DeviceMapping(path_on_host="/dev/zero", path_in_container="/dev/z")]})["linux"]
    assert [(d["path"], d["type"], d["major"], d["minor"]) for d in found["devices"]] == [("/dev/z", "c", 1, 5)]
    assert found["resources"]["devices"][-1] == {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"}


def test_mounts() -> None:
    mounts = [
        MountPoint(type="bind", source="/s", destination="/data", rw=False, propagation="rslave"),
        MountPoint(type="tmpfs", source="", destination="/run", mode="size=1m,exec"),
        MountPoint(type="bind", source="/h", destination="/etc/hosts"),
        MountPoint(type="tmpfs", source="", destination="/dev/shm", mode="size=5m"),
    ]
    found = config(mounts=mounts, files={"/etc/hosts": "/x/hosts", "/etc/hostname": "/x/hostname"})["mounts"]
    at = {m["destination"]: m for m in found}
    assert len(at) == len(found)
    assert (at["/data"]["options"], at["/data"]["type"]) == (["rbind", "rslave", "ro"], "bind")
    assert at["/run"]["options"] == ["nosuid", "nodev", "size=1m"]
    assert (at["/etc/hosts"]["source"], at["/etc/hostname"]["source"]) == ("/h", "/x/hostname")
    assert "size=5m" in at["/dev/shm"]["options"]


def test_read_only() -> None:
    found = config(host={"readonly_rootfs": True}, files={"/etc/hosts": "/x/hosts"})
    assert found["root"]["readonly"] is True
    assert "ro" in found["mounts"][-1]["options"]


def test_terminal_limits_and_init() -> None:
    found = config(
        config={"tty": True},
        host={
            "console_size": (30, 90),
            "ulimits": [Ulimit(name="nofile", soft=1, hard=2)],
            "init": True,
            "shm_size": 1024,
        },
    )
    process = found["process"]
    assert process["terminal"] is True
    assert process["consoleSize"] == {"height": 30, "width": 90}
    assert "TERM=xterm" in process["env"]
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}]
    assert found["annotations"]["proa.init"] == "true"
    assert any("size=1024" in m["options"] for m in found["mounts"])


def test_exec() -> None:
    record = container(
        config={"env": ["A=1", "TERM=x"], "working_dir": "/w", "user": "me"},
        host={"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"], "group_add": ["7"]},
    )
    process = exec_process(record, ExecRequest(cmd=["sh"]), None)
    assert (process["args"], process["cwd"], process["user"]["username"]) == (["sh"], "/w", "me")
    assert process["user"]["additionalGroups"] == ["7"]
    assert process["capabilities"]["effective"] == []
    assert process["noNewPrivileges"] is True
    process = exec_process(
        record,
        ExecRequest(cmd=["sh"], user="0:0", env=["A=2", "B=3"], working_dir="/x", tty=True, privileged=True),
        (5, 6),
    )
    assert (process["cwd"], process["user"]["username"]) == ("/x", "0:0")
    assert [e for e in process["env"] if e[0] in "ABT"] == ["A=2", "TERM=x", "B=3"]
    assert process["consoleSize"] == {"height": 5, "width": 6}
    assert process["capabilities"]["effective"] == list(defaults.ALL_CAPABILITIES)
    with pytest.raises(Invalid):
        exec_process(record, ExecRequest(cmd=["sh"], working_dir="relative"), None)


@pytest.mark.parametrize(
    ("host", "size", "has", "lacks"),
    [
        ({}, 14, "CAP_CHOWN", "CAP_SYS_ADMIN"),
        ({"cap_drop": ["ALL"]}, 0, "", "CAP_CHOWN"),
        ({"cap_drop": ["all"], "cap_add": ["chown"]}, 1, "CAP_CHOWN", "CAP_KILL"),
        ({"cap_add": ["CAP_SYS_TIME"], "cap_drop": ["Mknod"]}, 14, "CAP_SYS_TIME", "CAP_MKNOD"),
        ({"cap_add": ["CHOWN", "CHOWN"]}, 14, "CAP_CHOWN", "CAP_SYS_ADMIN"),
        (
            {"cap_add": ["ALL"], "cap_drop": ["SYS_ADMIN"]},
            len(defaults.ALL_CAPABILITIES) - 1,
            "CAP_BPF",
            "CAP_SYS_ADMIN",
        ),
    ],
)
def test_capabilities(host: dict[str, Any], size: int, has: str, lacks: str) -> None:
    found = resolve_security(HostConfig(**host)).capabilities
    assert len(found) == len(set(found)) == size
    assert not has or has in found
    assert lacks not in found


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (["seccomp=unconfined"], "seccomp", "unconfined"),
        (["seccomp:unconfined"], "seccomp", "unconfined"),
        (["seccomp=builtin"], "seccomp", "default"),
        (["no-new-privileges"], "no_new_privileges", True),
        (["no-new-privileges:true"], "no_new_privileges", True),
        (["no-new-privileges=false"], "no_new_privileges", False),
        (["systempaths=unconfined"], "masked_paths", []),
        (["apparmor=unconfined"], "seccomp", "default"),
        (["label=disable"], "seccomp", "default"),
    ],
)
def test_security_options(options: list[str], field: str, value: object) -> None:
    assert getattr(resolve_security(HostConfig(security_opt=options)), field) == value


@pytest.mark.parametrize(
    "option", ["x", "seccomp=/file", 'seccomp={"a":1,"a":2}', "seccomp={}", "no-new-privileges=maybe", "seccomp="]
)
def test_no_security_options(option: str) -> None:
    with pytest.raises(Invalid):
        resolve_security(HostConfig(security_opt=[option]))


def test_an_own_profile() -> None:
    text = 'seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}'
    found = config(host={"security_opt": [text]})
    assert found["linux"]["seccomp"]["syscalls"] == [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]
    assert found["annotations"] == {}
