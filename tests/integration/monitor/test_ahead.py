"""Containers in namespaces that were made ahead: no different from others, and nothing stays of unused ones."""

from __future__ import annotations

import os
import re
import signal
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


def namespace(pid: int, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


class Spare:
    """The nursery's spare monitor, and its launcher that waits with namespaces made ahead."""

    def __init__(self, pid: int, launcher: int, netns: str) -> None:
        self.pid = pid
        self.launcher = launcher
        self.netns = netns

    def used_by(self, container: int) -> bool:
        return namespace(container, "net") == self.netns


def waiting_spare(lab: Lab) -> Spare:
    """The spare, once it is ready."""
    found: list[Spare] = []

    def look() -> bool:
        for spare in children_of(lab.nursery.pid):
            try:
                if not Path(f"/proc/{spare}/cmdline").read_bytes().startswith(b"proa nursery"):
                    continue
                for launcher in children_of(spare):
                    if namespace(launcher, "ipc") != namespace(os.getpid(), "ipc"):  # what is made last
                        links = [os.readlink(link) for link in Path(f"/proc/{launcher}/fd").iterdir()]
                        found.append(Spare(spare, launcher, next(link for link in links if link.startswith("net:"))))
                        return True
            except FileNotFoundError:
                continue  # it ended; the next spare is on its way
        return False

    wait_until(look)
    return found[0]


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())  # the nursery collects nobody


def normal(data: bytes) -> list[str]:
    """Without what differs from one container to the next: ids, numbers of mounts, dates."""
    text = re.sub(r"[0-9a-f]{64}|\d+:\d+ |master:\d+|\w{3} +\d+ \d\d:\d\d|NS\w+:.*", "*", data.decode())
    return sorted(text.splitlines())


@pytest.mark.parametrize("tty", [False, True])
def test_it_is_like_any_other(lab: Lab, tty: bool) -> None:
    looks = []
    for use in (True, False):
        spare = waiting_spare(lab)
        if not use:
            end(spare.pid)
        connection, client = lab.start_attached("sh", "-c", f"sleep 0.3; {LOOK}", tty=tty)
        assert spare.used_by(connection.started["pid"]) == use
        data = receive_all(client)
        looks.append(normal(data if tty else b"".join(unframe(data).values())))
        assert wait_exit(connection)["status"] == 0, data
    assert looks[0] == looks[1]
    assert len(looks[0]) > 60


def test_mounts_and_host_name_are_those_of_the_start(lab: Lab) -> None:
    """Nothing of the host's mounts is held busy by a process that waits, and a later mount can be bound."""
    spare = waiting_spare(lab)
    for kind in ("mnt", "uts", "user", "cgroup", "net", "pid"):
        assert namespace(spare.launcher, kind) == namespace(os.getpid(), kind)
    source = lab.directory / "late"
    source.mkdir()
    mount.mount("late", source, "tmpfs", 0)
    try:
        (source / "file").write_text("late\n")
        request = lab.request("sh", "-c", "cat /tmp/file; sleep 60")
        bind = {"destination": "/tmp", "type": "bind", "source": str(source), "options": ["rbind", "ro"]}
        request["config"]["mounts"].append(bind)
        connection = lab.submit(request)
        assert spare.used_by(connection.started["pid"])
        wait_until(lambda: lab.log(connection) == [("stdout", "late\n")])
        connection.kill(signal.SIGKILL)
        wait_exit(connection)
    finally:
        mount.umount2(source)
    source.rmdir()


def test_a_network_namespace_made_beforehand_is_joined(lab: Lab) -> None:
    spare = waiting_spare(lab)
    netns = lab.nursery.make_netns()
    connection = lab.submit(lab.request("sleep", "60"), {"netns": netns.netns_fd})
    pid = connection.started["pid"]
    assert not spare.used_by(pid)
    assert os.stat(f"/proc/{pid}/ns/net").st_ino == os.fstat(netns.netns_fd).st_ino
    for kind in ("pid", "ipc"):
        assert namespace(pid, kind) != namespace(os.getpid(), kind)
    for fd in netns:
        if fd >= 0:
            os.close(fd)


@pytest.mark.parametrize("missing", ["pid", "ipc", "network"])
def test_what_was_made_ahead_is_left_when_it_does_not_fit(lab: Lab, missing: str) -> None:
    spare = waiting_spare(lab)
    kinds = {"mount": "mnt", "uts": "uts", "pid": "pid", "ipc": "ipc", "network": "net"}
    asked = tuple(kind for kind in kinds if kind != missing)
    connection = lab.submit(lab.request("sleep", "60", namespaces=asked))
    pid = connection.started["pid"]
    assert not spare.used_by(pid)
    for kind, name in kinds.items():
        assert (namespace(pid, name) == namespace(os.getpid(), name)) == (kind == missing)


def test_what_lasts_becomes_the_monitors_child(lab: Lab) -> None:
    spare = waiting_spare(lab)
    connection = lab.start("sleep", "60")
    pid = connection.started["pid"]
    wait_until(lambda: children_of(spare.pid) == [pid])
    assert connection.state()["monitor"]["pid"] == spare.pid
    assert not Path(f"/proc/{spare.launcher}").exists()


def test_failures_are_typed_and_leave_nothing(lab: Lab) -> None:
    for args, code in ((("no-such-command",), "command-not-found"), (("sleep", "60"), "bind-source-missing")):
        spare = waiting_spare(lab)
        request = lab.request(*args)
        if code == "bind-source-missing":
            bind = {"destination": "/tmp", "type": "bind", "source": "/no/such/file", "options": []}
            request["config"]["mounts"].append(bind)
        with pytest.raises(ProaError) as caught:
            lab.submit(request)
        assert caught.value.code == code
        wait_until(lambda pid=spare.pid: not Path(f"/proc/{pid}").exists())
        assert not Path(request["socket"]).exists()
        assert not list(Path(request["dir"]).glob("monitor.json*"))
        assert not list(Path("/sys/fs/cgroup").glob(f"*/{request['cgroup']['name']}"))


def test_what_cannot_be_compiled_is_told(lab: Lab) -> None:
    waiting_spare(lab)
    request = lab.request("true")
    request["config"]["mounts"].append({"destination": "relative", "type": "tmpfs"})
    with pytest.raises(Invalid, match="relative") as caught:
        lab.submit(request)
    assert caught.value.code == "invalid-path"


def test_it_ends_with_its_launcher_and_with_the_nursery(lab: Lab) -> None:
    spare = waiting_spare(lab)
    os.kill(spare.launcher, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{spare.pid}").exists())
    wait_exit(lab.start("true"))  # by another spare
    spare = waiting_spare(lab)
    lab.nursery.close()
    wait_until(lambda: not Path(f"/proc/{spare.launcher}").exists() and not Path(f"/proc/{spare.pid}").exists())


def test_a_start_that_its_engine_forgot(lab: Lab) -> None:
    spare = waiting_spare(lab)
    lab.nursery.lend().close()  # a connection like any other
    wait_until(lambda: not Path(f"/proc/{spare.pid}").exists())
    with pytest.raises(NotFound):
        lab.start("no-such-command")
