"""The engine of a real unprivileged user, with ranges of ids and a network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import until


@pytest.fixture(scope="module")
def mine(tun: None, user_engine: Callable[..., Any]) -> Any:
    return user_engine()


def test_root_inside_is_the_user_outside(mine: Any) -> None:
    assert mine.sh("id -u; cat /proc/self/uid_map | head -1").split()[:4] == ["0", "0", str(mine.uid), "1"]
    mine.proa("run", "-d", "--name", "sleeper", "--network", "none", "busybox", "sleep", "100")
    pid = mine.inspect("sleeper")["State"]["Pid"]
    assert f"Uid:\t{mine.uid}\t" in Path(f"/proc/{pid}/status").read_text()
    mine.proa("rm", "-f", "sleeper")
    assert "name=rootless" in json.loads(mine.out("info", "--format", "json"))["SecurityOptions"]


def test_users_of_the_image_have_subordinate_ids(mine: Any) -> None:
    script = "touch /tmp/x; stat -c %u:%g /tmp/x; id; grep CapEff /proc/self/status"
    owner, identity, capabilities = mine.sh(script, "--user", "user").splitlines()
    assert owner == "1000:1000"
    assert identity.startswith("uid=1000(user) gid=1000(user)")
    assert capabilities == "CapEff:\t0000000000000000"


def test_isolation_is_as_of_root(mine: Any) -> None:
    script = """
    grep -E '^(CapBnd|Seccomp):' /proc/self/status
    for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo no $d; done
    (echo 1 > /proc/sys/net/ipv4/ip_forward) 2>/dev/null || echo proc readonly
    touch /sys/fs/cgroup/x 2>/dev/null || echo cgroup readonly
    cat /proc/keys /proc/timer_list | wc -c
    mount -t tmpfs x /tmp 2>/dev/null || echo no mount
    """
    assert mine.sh(script).splitlines() == [
        "CapBnd:\t00000000a80425fb",
        "Seccomp:\t2",
        "proc readonly",
        "cgroup readonly",
        "0",
        "no mount",
    ]


def test_life_of_a_container(mine: Any) -> None:
    loop = "echo started; trap 'exit 3' TERM; while :; do sleep 0.1; done"
    mine.proa("run", "-d", "--name", "lively", "-v", "kept:/data", "busybox", "sh", "-c", loop)
    mine.proa("exec", "lively", "sh", "-c", "touch /data/x; chown 1000:1000 /data/x; echo new > /new")
    assert mine.out("exec", "--user", "1000", "lively", "stat", "-c", "%u", "/data/x") == "1000"
    until(lambda: mine.out("logs", "lively") == "started", "the log")
    assert mine.proa("exec", "lively", "sh", "-c", "exit 7", check=False).returncode == 7
    (mine.directory / "file").write_text("copied")
    os.chown(mine.directory / "file", mine.uid, mine.uid)
    mine.proa("cp", str(mine.directory / "file"), "lively:/tmp/")
    assert mine.out("exec", "lively", "cat", "/tmp/file") == "copied"
    assert "A /new" in mine.out("diff", "lively").splitlines()
    mine.proa("commit", "lively", "kept-image")
    assert mine.sh("cat /new", image="kept-image") == "new"
    mine.proa("stop", "lively")
    assert mine.inspect("lively")["State"]["ExitCode"] == 3
    mine.proa("start", "lively")
    mine.proa("rm", "-f", "lively")
    assert mine.sh("stat -c %u /data/x", "-v", "kept:/data") == "1000"


def test_containers_outlive_the_engine_and_are_found_again(mine: Any) -> None:
    mine.proa("run", "-d", "--name", "lasting", "busybox", "sh", "-c", "while :; do sleep 0.1; done")
    pid = mine.inspect("lasting")["State"]["Pid"]
    os.kill(mine.pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{mine.pid}/stat").exists() or " Z " in Path(f"/proc/{mine.pid}/stat").read_text())
    assert mine.inspect("lasting")["State"]["Pid"] == pid
    assert mine.out("exec", "lasting", "echo", "still here") == "still here"
    mine.proa("rm", "-f", "lasting")


def test_restarts_and_healthchecks(mine: Any) -> None:
    check = ("--health-cmd", "echo seen", "--health-interval", "50ms")
    mine.proa("run", "-d", "--name", "checked", "--network", "none", *check, "busybox", "sleep", "1000")
    assert mine.out("wait", "--condition", "healthy", "checked") == "0"
    policy = ("--restart", "on-failure:2")
    mine.proa("run", "-d", "--name", "again", "--network", "none", *policy, "busybox", "sh", "-c", "echo try; exit 1")
    until(lambda: mine.out("logs", "again") == "try\ntry\ntry", "it to be tried again, twice")
    mine.proa("update", "--restart", "no", "checked")
    mine.proa("rm", "-f", "checked", "again")


def test_the_network_reaches_out(mine: Any, peer: str) -> None:
    assert json.loads((mine.run_dir / "rootless.json").read_bytes())["network"] == "pasta"
    fetch = f"timeout 5 nc {peer} 8080 </dev/null | head -n 1"
    assert mine.out("run", "--rm", "busybox", "sh", "-c", fetch) == "hello from outside"
    # Containers of one network reach each other; the machine's loopback is nobody's business.
    mine.proa("run", "-d", "--name", "web", "busybox", "sh", "-c", "while :; do echo page | nc -l -p 80; done")
    address = mine.inspect("web")["NetworkSettings"]["IPAddress"]
    fetch = f"for i in 1 2 3 4 5 6 7 8 9; do nc -w 1 {address} 80 </dev/null && break; sleep 0.2; done"
    assert mine.out("run", "--rm", "busybox", "sh", "-c", fetch) == "page"
    mine.proa("rm", "-f", "web")


def test_networks_with_names(mine: Any, peer: str) -> None:
    mine.proa("network", "create", "front")
    serve = "mkdir /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www"
    mine.proa("run", "-d", "--name", "named", "--network", "front", "busybox", "sh", "-c", serve)
    mine.proa("run", "-d", "--name", "client", "--network", "front", "busybox", "sleep", "1000")
    assert mine.out("exec", "client", "wget", "-qO-", "http://named") == "page"
    assert (
        mine.out("exec", "client", "sh", "-c", f"timeout 5 nc {peer} 8080 </dev/null | head -n 1")
        == "hello from outside"
    )
    pid = mine.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}/stat").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())
    assert mine.out("exec", "client", "wget", "-qO-", "http://named") == "page"
    mine.proa("rm", "-f", "named", "client")
    mine.proa("network", "rm", "front")


def test_limits_are_said_not_to_hold(mine: Any) -> None:
    done = mine.proa("run", "--rm", "--network", "none", "--memory", "64m", "busybox", "true")
    assert b"limits are not enforced" in done.stderr
    assert mine.proa("run", "--rm", "--network", "none", "busybox", "true").stderr == b""


def test_nobody_else_gets_in(mine: Any) -> None:
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for path in (mine.root, mine.run_dir / "engine.sock"):
        assert subprocess.run([*as_nobody, "ls", str(path)], capture_output=True, check=False).returncode != 0
    for path in (mine.root, mine.run_dir):
        assert path.stat().st_mode & 0o077 == 0


def test_the_last_engine_takes_the_namespaces_with_it(mine: Any) -> None:
    mine.out("ps")
    record = json.loads((mine.run_dir / "rootless.json").read_bytes())
    mine.proa("system", "stop")
    until(lambda: not mine.processes(), f"the user's processes to end: {mine.processes()}")
    assert not (mine.run_dir / "rootless.json").exists()
    mine.out("ps")
    assert json.loads((mine.run_dir / "rootless.json").read_bytes())["holder"] != record["holder"]


def test_ranges_and_the_users_own_id_inside(mine: Any) -> None:
    """No file system of the machine may be shown with other ids here: owners are changed in the container's layer."""
    first, second = (mine.sh("cat /proc/self/uid_map", "--userns", "auto").split() for _ in range(2))
    assert first[2] == second[2] == "4096"
    mine.proa("run", "-d", "--name", "apart", "--network", "none", "--userns", "auto", "busybox", "sleep", "100")
    assert mine.out("exec", "apart", "stat", "-c", "%u:%g", "/bin/busybox", "/home/user").split() == [
        "0:0",
        "1000:1000",
    ]
    mine.proa("exec", "apart", "sh", "-c", "touch /etc/new; chown user /etc/new; chmod 4711 /etc/new")
    pid = mine.inspect("apart")["State"]["Pid"]
    assert f"Uid:\t{mine.uid}\t" not in Path(f"/proc/{pid}/status").read_text()
    mine.proa("restart", "-t", "0", "apart")
    assert mine.out("exec", "apart", "stat", "-c", "%u %a", "/etc/new") == "1000 4711"
    assert b"cannot be committed" in mine.proa("commit", "apart", "no", check=False).stderr
    mine.proa("rm", "-f", "apart")
    kept = mine.sh("id -u; id -g; stat -c %u /bin/busybox; touch /tmp/x && stat -c %u /tmp/x", "--userns", "keep-id")
    assert kept.split() == [str(mine.uid), str(mine.uid), "0", str(mine.uid)]
    assert mine.sh("id -u", "--userns", "keep-id:uid=500,gid=500") == "500"
    # The user's own directory, mounted: his files are his.
    (mine.directory / "home").mkdir()
    os.chown(mine.directory / "home", mine.uid, mine.uid)
    mine.sh("touch /h/made", "--userns", "keep-id", "-v", f"{mine.directory}/home:/h")
    assert (mine.directory / "home/made").stat().st_uid == mine.uid
