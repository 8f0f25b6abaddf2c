"""What a container of default isolation may see and do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from proa.runtime import defaults

DEFAULT_CAPABILITIES = "00000000a80425fb"


def fields(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def test_credentials_of_root(containers: Any) -> None:
    status = fields(containers.run("cat", "/proc/self/status").stdout)
    assert status["CapBnd"] == status["CapPrm"] == status["CapEff"] == DEFAULT_CAPABILITIES
    assert status["CapInh"] == status["CapAmb"] == "0000000000000000"
    assert status["SigIgn"] == status["SigBlk"] == status["SigCgt"] == "0000000000000000"
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "0"
    assert status["Groups"] == "0 10"
    assert status["Umask"] == "0022"


@pytest.mark.parametrize("added", [(), ("CAP_NET_ADMIN",)])
def test_other_users_have_no_capabilities(containers: Any, added: tuple[str, ...]) -> None:
    capabilities = defaults.capabilities((*defaults.CAPABILITIES, *added))
    status = fields(containers.run("cat", "/proc/self/status", user="user", capabilities=capabilities).stdout)
    assert status["CapPrm"] == status["CapEff"] == status["CapInh"] == status["CapAmb"] == "0000000000000000"
    assert status["Uid"] == "1000\t1000\t1000\t1000"
    assert status["Groups"] == "10 50 1001"


def test_ambient_capabilities_when_asked_for(containers: Any) -> None:
    names = ["CAP_NET_ADMIN"]
    sets = dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), names)
    status = fields(containers.run("cat", "/proc/self/status", user="user", capabilities=sets).stdout)
    assert status["CapEff"] == status["CapAmb"] == f"{1 << 12:016x}"


def test_no_capabilities_without_a_list(containers: Any) -> None:
    status = fields(containers.run("cat", "/proc/self/status", capabilities=None).stdout)
    assert status["CapBnd"] == status["CapEff"] == "0000000000000000"


def test_no_new_privileges_and_rlimits(containers: Any) -> None:
    limits = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    result = containers.sh("cat /proc/self/status; ulimit -n; ulimit -Hn", noNewPrivileges=True, rlimits=limits)
    status = fields(result.stdout)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert result.stdout.splitlines()[-2:] == ["100", "200"]


def test_rlimits_beyond_what_we_may_are_clamped(containers: Any) -> None:
    result = containers.sh("ulimit -Hn", rlimits=[{"type": "RLIMIT_NOFILE", "soft": 1 << 30, "hard": 1 << 30}])
    assert result.status == 0
    assert int(result.stdout) > 0
    assert any("RLIMIT_NOFILE" in warning for warning in result.warnings) or int(result.stdout) == 1 << 30


def test_masked_and_readonly_paths(containers: Any) -> None:
    script = f"""
    for path in {" ".join(defaults.MASKED_PATHS)}; do
        if [ -d $path ]; then [ -z "$(ls $path)" ] || echo "not empty: $path"
        elif [ -e $path ]; then [ -z "$(cat $path)" ] || echo "not empty: $path"; fi
    done
    for path in {" ".join(defaults.READONLY_PATHS)}; do
        [ -e $path ] && grep -q " $path proc ro," /proc/self/mounts || echo "without protection: $path"
    done
    echo 1 > /proc/sys/kernel/domainname
    mkdir /sys/fs/cgroup/x; mkdir /sys/fs/cgroup/memory/x
    mkdir /sys/x 2>/dev/null || echo done
    """
    result = containers.sh(script)
    assert "not empty" not in result.stdout
    missing = [f"without protection: {path}" for path in defaults.READONLY_PATHS if not Path(path).exists()]
    assert [line for line in result.stdout.splitlines() if line.startswith("without")] == missing
    assert result.stdout.endswith("done\n")
    assert result.stderr.count("Read-only file system") == 3


def test_default_privileges_do_not_reach_mounts_or_devices(containers: Any) -> None:
    result = containers.sh(
        "mount -t tmpfs none /tmp; umount /sys; unshare -m true; "
        "mknod /tmp/disk b 254 0; mknod /tmp/zero c 1 5 && head -c 3 /tmp/zero | wc -c; hostname other"
    )
    assert "mount: " in result.stderr
    assert "umount: " in result.stderr
    assert "unshare: " in result.stderr
    assert "mknod: /tmp/disk: Operation not permitted" in result.stderr
    assert "sethostname: Operation not permitted" in result.stderr
    assert result.stdout == "3\n"


def test_namespaces_are_its_own(containers: Any) -> None:
    result = containers.sh(
        "hostname; ps; ls /proc/self/ns; readlink /proc/self/ns/*; cat /proc/self/cgroup; ip -o link"
    )
    assert result.stdout.startswith("box\n")
    assert "    1 root     /bin/sh -c" in result.stdout
    for name in ("mnt", "pid", "uts", "ipc", "net", "cgroup"):
        assert os.readlink(f"/proc/self/ns/{name}") not in result.stdout
    assert all(
        line.endswith(":/") for line in result.stdout.splitlines() if line[:2].strip(":").isdecimal() and ":/" in line
    )
    assert "lo: <LOOPBACK,UP" in result.stdout
    assert "eth" not in result.stdout


def test_host_network_when_no_namespace_is_asked_for(containers: Any) -> None:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = defaults.namespaces(network=False)
        config["linux"]["sysctl"] = {}

    result = containers.run("readlink", "/proc/self/ns/net", change=change)
    assert result.stdout.strip() == os.readlink("/proc/self/ns/net")


def test_environment_is_made_from_nothing(containers: Any) -> None:
    env = ["PATH=/bin", "SECRET", "", "=x", "A=1", "A=2", "B=x=y", "LINES=a\nb"]
    result = containers.run("env", env=env, user="user")
    assert sorted(result.stdout.splitlines()) == ["A=2", "B=x=y", "HOME=/home/user", "LINES=a", "PATH=/bin", "b"]


def test_no_file_of_ours_is_open(containers: Any) -> None:
    result = containers.sh("ls /proc/self/fd; readlink /proc/1/exe; readlink /proc/1/cwd")
    assert result.stdout.split() == ["0", "1", "2", "3", "/bin/busybox", "/"]


def test_devices_and_their_links(containers: Any) -> None:
    result = containers.sh(
        "cd /dev; ls; stat -c '%t:%T %a' null zero full random urandom tty; readlink ptmx; echo x > null; "
        "head -c 4 urandom | wc -c"
    )
    lines = result.stdout.split("\n")
    names = {"fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty"}
    assert names <= set(lines)
    assert "console" not in lines
    assert "1:3 666" in lines
    assert "5:0 666" in lines
    assert "pts/ptmx" in lines
    assert result.stdout.endswith("4\n")
    assert result.stderr == ""


def test_standard_streams_can_be_reopened_by_a_user(containers: Any) -> None:
    assert containers.sh("echo seen > /dev/stdout; echo also > /dev/stderr", user="user").stdout == "seen\n"


def test_readonly_root(containers: Any) -> None:
    result = containers.sh(
        "touch /x; touch /dev/x /dev/shm/x && echo ok", change=lambda c: c.update(root={"readonly": True})
    )
    assert result.stderr == "touch: /x: Read-only file system\n"
    assert result.stdout == "ok\n"


def test_bind_root(containers: Any) -> None:
    root = containers.copy()
    result = containers.sh("touch /made; cat /proc/self/mounts", rootfs=[{"type": "bind", "source": str(root)}])
    assert result.status == 0
    assert (root / "made").exists()
    result = containers.sh("touch /not", rootfs=[{"type": "bind", "source": str(root), "options": ["rbind", "ro"]}])
    assert "Read-only" in result.stderr


def test_binds_with_options(containers: Any, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("content\n")

    def change(config: dict[str, Any]) -> None:
        config["mounts"] += [
            {"destination": "/data/deep/dir", "type": "bind", "source": str(tmp_path / "dir"), "options": ["rbind"]},
            {"destination": "/data/ro", "type": "bind", "source": str(tmp_path / "dir"), "options": ["rbind", "rro"]},
            {
                "destination": "/etc/new/file",
                "type": "bind",
                "source": str(tmp_path / "file"),
                "options": ["bind", "ro"],
            },
        ]

    result = containers.sh(
        "touch /data/deep/dir/a; touch /data/ro/b; cat /etc/new/file; echo x > /etc/new/file", change=change
    )
    assert (tmp_path / "dir/a").exists()
    assert not (tmp_path / "dir/b").exists()
    assert result.stdout == "content\n"
    assert result.stderr.count("Read-only file system") == 2


def test_shared_bind_shows_mounts_to_the_host(containers: Any, tmp_path: Path) -> None:
    # The host's root may be private, then nothing is shared: only the propagation inside is to be seen.
    def change(config: dict[str, Any]) -> None:
        options = ["rbind", "rshared"]
        config["mounts"].append({"destination": "/shared", "type": "bind", "source": str(tmp_path), "options": options})

    result = containers.sh("grep ' /shared ' /proc/self/mountinfo; grep -c ' / / ' /proc/self/mountinfo", change=change)
    assert " shared:" in result.stdout


def test_sysctls_of_its_own_namespaces(containers: Any) -> None:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["sysctl"] = {
            "net.ipv4.ip_forward": "1",
            "kernel.shm_rmid_forced": "1",
            "net/ipv4/tcp_syncookies": "0",
        }

    paths = "/proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/tcp_syncookies"
    before = Path("/proc/sys/kernel/shm_rmid_forced").read_text()
    assert containers.sh(f"cat {paths}", change=change).stdout == "1\n1\n0\n"
    assert Path("/proc/sys/kernel/shm_rmid_forced").read_text() == before


def test_oom_score_that_may_not_be_lowered_only_warns(containers: Any) -> None:
    result = containers.sh("cat /proc/self/oom_score_adj", oomScoreAdj=500)
    assert result.stdout == "500\n"
    assert containers.sh("true", oomScoreAdj=-999).status == 0


def test_nothing_is_left_on_the_host(containers: Any) -> None:
    fds = containers.call("fds")["result"]
    pid = containers.start("sleep", "100")
    assert str(containers.base) not in Path("/proc/self/mountinfo").read_text()
    assert str(containers.base) in Path(f"/proc/{pid}/mountinfo").read_text()
    containers.stop(pid)
    assert str(containers.base) not in Path("/proc/self/mountinfo").read_text()
    assert containers.call("fds")["result"] == fds


def test_privileged_as_an_engine_would_ask_for_it(containers: Any) -> None:
    def change(config: dict[str, Any]) -> None:
        config["annotations"]["proa.seccomp"] = "unconfined"
        config["linux"]["maskedPaths"] = config["linux"]["readonlyPaths"] = []
        for mount in config["mounts"]:
            mount["options"] = [option for option in mount["options"] if option != "ro"]

    everything = defaults.capabilities(list(defaults.ALL_CAPABILITIES))
    script = "mount -t tmpfs x /tmp && echo mounted; mkdir /sys/fs/cgroup/memory/in && echo made; cat /proc/self/status"
    devices = {"devices": [{"allow": True, "access": "rwm"}]}
    result = containers.sh(script, capabilities=everything, change=change, resources=devices)
    assert result.stdout.startswith("mounted\nmade\n")
    assert "Seccomp:\t0" in result.stdout
    held = fields(Path("/proc/self/status").read_text())["CapEff"]
    assert f"CapEff:\t{held}" in result.stdout
