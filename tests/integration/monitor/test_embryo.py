"""Containers made of a process that was cloned ahead: no different from others, and nothing stays of unused ones."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from monitorlab import Lab, receive_all, unframe, wait_exit, wait_until

from proa.errors import Invalid, NotFound, ProaError
from proa.linux import mount

pytestmark = pytest.mark.root

LOOK = """
b=/bin/busybox
$b grep -E '^(Uid|Gid|Groups|NS|Threads|Sig[PBIC]|Shd|Cap|NoNew|Seccomp|Cpus_allowed_list|Umask)' /proc/self/status
$b cut -d ' ' -f 4- /proc/self/mountinfo
cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj /proc/self/personality
cat /sys/class/net/lo/flags; ls /sys/class/net; $b hostname
ls -l /dev; ls /proc/self/fd | wc -l; $b readlink /proc/self/cwd; $b readlink /proc/self/root
"""


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def namespace(pid: int, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def waiting_embryo(lab: Lab) -> int:
    """The embryo of the nursery's spare, once there is one."""
    found: list[int] = []

    def look() -> bool:
        for spare in children_of(lab.nursery.pid):
            try:
                if Path(f"/proc/{spare}/cmdline").read_bytes().startswith(b"proa nursery"):
                    own = namespace(spare, "pid")
                    found[:] = [child for child in children_of(spare) if namespace(child, "pid") != own]
            except FileNotFoundError:
                continue  # it ended; the next spare is on its way
            if found:
                return True
        return False

    wait_until(look)
    time.sleep(0.05)  # it may be rehearsing still
    return found[0]


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: state_of(pid) == "Z")


def normal(data: bytes) -> list[str]:
    """Without what differs from one container to the next: ids, numbers of mounts, dates."""
    text = re.sub(r"[0-9a-f]{64}|\d+:\d+ |master:\d+|\w{3} +\d+ \d\d:\d\d|NS\w+:.*", "*", data.decode())
    return sorted(text.splitlines())


@pytest.mark.parametrize("tty", [False, True])
def test_it_is_like_any_other(lab: Lab, tty: bool) -> None:
    looks = []
    for use in (True, False):
        embryo = waiting_embryo(lab)
        if not use:
            end(embryo)
        connection, client = lab.start_attached("sh", "-c", LOOK, tty=tty)
        assert (connection.started["pid"] == embryo) == use
        data = receive_all(client)
        looks.append(normal(data if tty else b"".join(unframe(data).values())))
        assert wait_exit(connection)["status"] == 0, data
    assert looks[0] == looks[1]
    assert len(looks[0]) > 60


def test_mounts_and_host_name_are_those_of_the_start(lab: Lab) -> None:
    """Nothing of the host's mounts is held busy by a process that waits, and a later mount can be bound."""
    embryo = waiting_embryo(lab)
    for kind in ("mnt", "uts", "user", "cgroup"):
        assert namespace(embryo, kind) == namespace(os.getpid(), kind)
    for kind in ("pid", "ipc", "net"):
        assert namespace(embryo, kind) != namespace(os.getpid(), kind)
    source = lab.directory / "late"
    source.mkdir()
    mount.mount("late", source, "tmpfs", 0)
    try:
        (source / "file").write_text("late\n")
        request = lab.request("cat", "/tmp/file")
        bind = {"destination": "/tmp", "type": "bind", "source": str(source), "options": ["rbind", "ro"]}
        request["config"]["mounts"].append(bind)
        connection = lab.submit(request)
        assert connection.started["pid"] == embryo
        wait_exit(connection)
        assert lab.log(connection) == [("stdout", "late\n")]
    finally:
        mount.umount2(source)
    source.rmdir()


def test_a_network_namespace_made_beforehand_is_joined(lab: Lab) -> None:
    embryo = waiting_embryo(lab)
    netns = lab.nursery.make_netns()
    connection = lab.submit(lab.request("sleep", "60"), {"netns": netns.netns_fd})
    assert connection.started["pid"] == embryo
    assert os.stat(f"/proc/{embryo}/ns/net").st_ino == os.fstat(netns.netns_fd).st_ino
    for fd in netns:
        if fd >= 0:
            os.close(fd)


def test_failures_are_typed_and_leave_nothing(lab: Lab) -> None:
    for args, code in ((("no-such-command",), "command-not-found"), (("sleep", "60"), "bind-source-missing")):
        embryo = waiting_embryo(lab)
        request = lab.request(*args)
        if code == "bind-source-missing":
            bind = {"destination": "/tmp", "type": "bind", "source": "/no/such/file", "options": []}
            request["config"]["mounts"].append(bind)
        with pytest.raises(ProaError) as caught:
            lab.submit(request)
        assert caught.value.code == code
        wait_until(lambda pid=embryo: not Path(f"/proc/{pid}").exists())
        assert not Path(request["socket"]).exists()
        assert not list(Path(request["dir"]).glob("monitor.json*"))
        assert not list(Path("/sys/fs/cgroup").glob(f"*/{request['cgroup']['name']}"))


def test_what_cannot_be_compiled_is_told(lab: Lab) -> None:
    for _ in range(5):  # whether it ends before or after it was sent everything
        waiting_embryo(lab)
        request = lab.request("true")
        request["config"]["mounts"].append({"destination": "relative", "type": "tmpfs"})
        with pytest.raises(Invalid, match="relative") as caught:
            lab.submit(request)
        assert caught.value.code == "invalid-path"


@pytest.mark.parametrize("why", ["namespaces", "size"])
def test_an_embryo_of_no_use_goes(lab: Lab, why: str) -> None:
    embryo = waiting_embryo(lab)
    namespaces = ("mount", "uts", "ipc", "network") if why == "namespaces" else ()
    request = lab.request("sleep", "60", namespaces=namespaces)
    if why == "size":
        request["config"]["process"]["env"] += [f"X{number}={'x' * 1000}" for number in range(70)]
    connection = lab.submit(request)
    assert connection.started["pid"] != embryo
    monitor = connection.state()["monitor"]["pid"]
    wait_until(lambda: children_of(monitor) == [connection.started["pid"]])
    assert not Path(f"/proc/{embryo}").exists()


def test_it_ends_with_its_launcher_and_with_the_nursery(lab: Lab) -> None:
    embryo = waiting_embryo(lab)
    spare = int(Path(f"/proc/{embryo}/stat").read_text().rpartition(")")[2].split()[1])
    launcher = next(child for child in children_of(spare) if child != embryo)
    os.kill(launcher, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{embryo}").exists() and not Path(f"/proc/{spare}").exists())
    wait_exit(lab.start("true"))  # by another spare
    embryo = waiting_embryo(lab)
    lab.nursery.close()
    wait_until(lambda: not Path(f"/proc/{embryo}").exists())


def test_a_start_that_its_engine_forgot(lab: Lab) -> None:
    embryo = waiting_embryo(lab)
    ours = lab.nursery.lend()  # a connection like any other
    ours.shutdown(socket.SHUT_RDWR)
    ours.close()
    wait_until(lambda: not Path(f"/proc/{embryo}").exists())
    with pytest.raises(NotFound):
        lab.start("no-such-command")
