"""What a config.json may ask for, obeyed by `proa-runtime` (runtime-spec config.md, config-linux.md)."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from bundles import Bundle

from proa.linux.sockets import receive_fds

pytestmark = pytest.mark.root


def output(bundle: Bundle, script: str) -> str:
    done = bundle.args("sh", "-c", script).run()
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def mount(bundle: Bundle, destination: str, kind: str, source: str, *options: str, **more: Any) -> None:
    bundle.config["mounts"].append(
        {"destination": destination, "type": kind, "source": source, "options": list(options), **more}
    )


def test_tmpcopyup_begins_with_what_it_covers(bundle: Bundle) -> None:
    root = bundle.own_root()
    (root / "data/sub").mkdir(parents=True)
    (root / "data/sub/file").write_text("here\n")
    (root / "data/sub/file").chmod(0o644)
    os.chown(root / "data/sub/file", 5, 6)
    (root / "data/link").symlink_to("/etc/shadow")
    mount(bundle, "/data", "tmpfs", "tmpfs", "nosuid", "tmpcopyup", "size=1m")
    found = output(
        bundle, "cat /data/sub/file; stat -c '%a %u %g' /data/sub/file; readlink /data/link; echo x >/data/n"
    )
    assert found.split("\n") == ["here", "644 5 6", "/etc/shadow"]
    assert not (root / "data/n").exists()


def test_mount_options_reach_the_mounts(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    mount(bundle, "/tmp/a", "bind", str(tmp_path / "a"), "rbind", "rro", "nosuid", "nosymfollow")
    mount(bundle, "/tmp/b", "none", str(tmp_path / "b"), "bind", "noexec", "noatime")
    mount(bundle, "/tmp/b", "none", str(tmp_path / "b"), "bind", "remount", "ro")
    mount(bundle, "/tmp/c/", "ramfs", "ramfs", "nodev", "mode=700")
    bundle.config["mounts"].insert(0, {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": []})
    table = output(bundle, "cat /proc/self/mountinfo")
    mounts = {line.split()[4]: line for line in table.splitlines()}
    assert {"ro", "nosuid", "nosymfollow"} <= set(mounts["/tmp/a"].split()[5].split(","))
    assert {"ro", "noexec", "noatime"} <= set(mounts["/tmp/b"].split()[5].split(","))
    assert " ramfs " in mounts["/tmp/c"]
    assert "mode=700" in mounts["/tmp/c"]


@pytest.mark.parametrize("kind", ["shared", "rslave", "private", "unbindable"])
def test_root_propagation(bundle: Bundle, kind: str) -> None:
    bundle.config["linux"]["rootfsPropagation"] = kind
    line = next(line for line in output(bundle, "cat /proc/self/mountinfo").splitlines() if line.split()[4] == "/")
    optional = line.split(" - ")[0].split()[6:]
    assert ("unbindable" in optional) == (kind == "unbindable")
    assert any(word.startswith("shared:") for word in optional) == (kind == "shared")


def test_a_bound_proc_must_be_a_procfs(bundle: Bundle, tmp_path: Path) -> None:
    bundle.config["mounts"] = [entry for entry in bundle.config["mounts"] if entry["destination"] != "/proc"]
    bundle.config["linux"]["namespaces"] = [n for n in bundle.config["linux"]["namespaces"] if n["type"] != "pid"]
    mount(bundle, "/proc", "bind", "/proc", "rbind")
    bundle.config["mounts"].insert(0, bundle.config["mounts"].pop())
    assert output(bundle, f"test -d /proc/{os.getpid()} && echo seen") == "seen"
    bundle.config["mounts"][0]["source"] = str(tmp_path)
    assert "nothing may be mounted on /proc" in bundle.run().stderr


def test_scheduler_priorities_and_personality(bundle: Bundle) -> None:
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    bundle.config["linux"]["personality"] = {"domain": "LINUX32"}
    found = output(bundle, "cut -d' ' -f19,41 /proc/self/stat; ionice -p $$; uname -m")
    assert found.split("\n") == ["7 3", "best-effort: prio 6", "i686"]


def test_time_offsets(bundle: Bundle) -> None:
    bundle.config["linux"]["namespaces"].append({"type": "time"})
    bundle.config["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 5, "nanosecs": 6}}
    host = float(Path("/proc/uptime").read_text().split()[0])
    bundle.args("sleep", "100").create()
    bundle.must("start", bundle.id)
    inside = float(bundle.must("exec", bundle.id, "cat", "/proc/uptime").split()[0])
    assert 1_000_000 <= inside - host < 1_000_600
    assert abs(float(Path("/proc/uptime").read_text().split()[0]) - host) < 600


def test_namespaces_of_another_container_are_joined(bundle: Bundle, tmp_path: Path, busybox_root: Path) -> None:
    bundle.args("sleep", "100").create()
    pid = bundle.state()["pid"]
    other = Bundle(tmp_path / "other", busybox_root, bundle.id + "-b")
    kinds = ("network", "ipc", "uts", "pid", "cgroup")
    files = {"network": "net"}
    other.config["linux"]["namespaces"] = [
        {"type": "mount"},
        *({"type": kind, "path": f"/proc/{pid}/ns/{files.get(kind, kind)}"} for kind in kinds),
    ]
    del other.config["hostname"]
    try:
        found = output(other, "for n in net ipc uts pid cgroup mnt; do readlink /proc/self/ns/$n; done").split()
        expected = [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("net", "ipc", "uts", "pid", "cgroup", "mnt")]
        assert found[:5] == expected[:5]
        assert found[5] != expected[5]
    finally:
        other.clean_up()


def test_user_namespace_and_idmapped_mounts(bundle: Bundle, tmp_path: Path) -> None:
    bundle.own_root()
    os.chown(bundle.rootfs, 200_000, 200_000)
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 1000, 1000)
    maps = [{"containerID": 0, "hostID": 200_000, "size": 65536}]
    linux = bundle.config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = maps
    for directory in (*tmp_path.parents, tmp_path, bundle.path):
        if str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    mapped = [{"containerID": 1000, "hostID": 200_007, "size": 1}]
    mount(bundle, "/tmp", "bind", str(data), "bind", "idmap", uidMappings=mapped, gidMappings=mapped)
    found = output(bundle, "cat /proc/self/uid_map; id -u; stat -c %u /tmp; grep Seccomp: /proc/self/status")
    assert found.split("\n")[0].split() == ["0", "200000", "65536"]
    assert found.split("\n")[1:3] == ["0", "7"]


class Agent:
    """Answers notifications of a seccomp listener that is sent to its socket."""

    def __init__(self, path: Path) -> None:
        self.message: dict[str, Any] = {}
        self.calls: list[int] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        with self.listener, self.listener.accept()[0] as connection:
            data, fds = receive_fds(connection, 1 << 16)
        self.message = json.loads(data)
        request = ctypes.create_string_buffer(80)  # struct seccomp_notif
        fcntl.ioctl(fds[0], 0xC0502100, request)
        identity, _pid, _flags, number = struct.unpack_from("=QIIi", request.raw)
        self.calls.append(number)
        answer = struct.pack("=QqiI", identity, 0, -123, 0)  # struct seccomp_notif_resp
        fcntl.ioctl(fds[0], 0xC0182101, bytearray(answer))
        os.close(fds[0])


@pytest.mark.parametrize("privileges", ["kept", "given up"])
def test_seccomp_notification_goes_to_the_agent(bundle: Bundle, tmp_path: Path, privileges: str) -> None:
    bundle.process["noNewPrivileges"] = privileges == "given up"
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(tmp_path / "agent"),
        "listenerMetadata": "who",
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_NOTIFY"}],
    }
    agent = Agent(tmp_path / "agent")
    done = bundle.args("hostname", "x").run()
    agent.thread.join(20)
    assert "No medium found" in done.stderr  # errno 123
    assert agent.calls == [170]
    assert agent.message["metadata"] == "who"
    assert agent.message["fds"] == ["seccompFd"]
    assert agent.message["state"]["id"] == bundle.id
    nobody = bundle.args("hostname", "x").run()
    assert nobody.returncode == 1
    assert "nothing takes the seccomp listener" in nobody.stderr


@pytest.mark.parametrize(
    ("action", "status"), [("SCMP_ACT_KILL_PROCESS", 128 + 31), ("SCMP_ACT_TRAP", 128 + 31), ("SCMP_ACT_LOG", 0)]
)
def test_seccomp_actions(bundle: Bundle, action: str, status: int) -> None:
    rule: dict[str, Any] = {"names": ["chdir"], "action": action}
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls": [rule],
    }
    # Not in process 1, which survives SIGSYS of its own; the filter is on when the working directory was entered.
    done = bundle.args("sh", "-c", "(cd /tmp; true); exit $?").run()
    assert done.returncode == status


def test_limits_without_the_privilege_are_lowered_with_a_warning(bundle: Bundle) -> None:
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1 << 30, "hard": 1 << 30}]
    bundle.process["oomScoreAdj"] = -1000
    found = output(bundle, "ulimit -n; cat /proc/self/oom_score_adj")
    warnings = [entry["msg"] for entry in bundle.logged() if entry["level"] == "warning"]
    assert len(found.split()) == 2
    with open("/proc/self/status") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff"))
    if not effective >> 24 & 1:
        assert any("CAP_SYS_RESOURCE" in text and "RLIMIT_NOFILE" in text for text in warnings)
        assert any("oom_score_adj" in text for text in warnings)


def test_resources_and_unknown_capabilities(bundle: Bundle) -> None:
    bundle.config["linux"]["resources"] |= {
        "memory": {"limit": 32 << 20},
        "pids": {"limit": 20},
        "cpu": {"shares": 512},
    }
    bundle.process["capabilities"]["bounding"].append("CAP_OF_TOMORROW")
    bundle.args("sleep", "100").create()
    data = json.loads(bundle.must("events", "--stats", bundle.id))["data"]
    assert data["memory"]["usage"]["limit"] == 32 << 20
    assert data["pids"]["limit"] == 20
    assert any("CAP_OF_TOMORROW" in entry["msg"] for entry in bundle.logged())


def test_devices_are_made_and_only_allowed_ones_open(bundle: Bundle) -> None:
    linux = bundle.config["linux"]
    linux["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 3, "gid": 4},
        {"path": "/dev/pipe", "type": "p"},
    ]
    done = bundle.args("sh", "-c", "stat -c '%t %T %a %u %g %F' /dev/fuse /dev/pipe; : </dev/null; : </dev/fuse").run()
    assert done.stdout.splitlines()[0] == "a e5 666 3 4 character special file"
    assert done.stdout.splitlines()[1].endswith("fifo")
    assert "/dev/fuse: Operation not permitted" in done.stderr
    linux["resources"]["devices"].append({"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"})
    allowed = bundle.args("sh", "-c", ": </dev/fuse").run()
    assert "Operation not permitted" not in allowed.stderr


def test_what_is_not_supported_is_refused_clearly(bundle: Bundle) -> None:
    for change, word in (
        ({"intelRdt": {"closID": "x"}}, "intelRdt"),
        ({"mountLabel": "system_u:object_r:x"}, "mountLabel"),
        ({"cgroupsPath": "../x"}, "cgroup path"),
    ):
        linux = bundle.config["linux"]
        bundle.config["linux"] = {**linux, **change}
        done = bundle.args("true").run()
        assert done.returncode == 1
        assert word in done.stderr
        bundle.config["linux"] = linux


def test_exec_affinity(bundle: Bundle, tmp_path: Path) -> None:
    bundle.args("sleep", "100").create()
    bundle.must("start", bundle.id)
    first = min(os.sched_getaffinity(0))
    process = {**bundle.process, "args": ["grep", "Cpus_allowed_list", "/proc/self/status"]}
    process["execCPUAffinity"] = {"initial": f"{first}", "final": f"{first}-{first}"}
    (tmp_path / "p.json").write_text(json.dumps(process))
    assert bundle.must("exec", "--process", str(tmp_path / "p.json"), bundle.id).split()[-1] == str(first)
