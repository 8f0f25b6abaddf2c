"""From start to exit record: statuses, records, logs, failures that leave nothing."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from monitorlab import Lab, receive_all, unframe, wait_exit, wait_until

from proa.errors import Denied, Invalid, NotFound, Unavailable
from proa.monitor.client import MonitorConnection
from proa.monitor.nursery import Nursery
from proa.monitor.records import read_exit, read_state

pytestmark = pytest.mark.root


def test_output_status_and_records(lab: Lab) -> None:
    connection, client = lab.start_attached("sh", "-c", "echo out; echo err >&2; exit 7")
    directory = lab.container_directory(connection)
    assert unframe(receive_all(client)) == {1: b"out\n", 2: b"err\n"}
    event = wait_exit(connection)
    assert (event["status"], event["signal"], event["oom"]) == (7, 0, False)
    assert connection.next_event(5) is None
    record = read_exit(directory)
    assert record is not None
    assert (record.status, record.pid, record.start_time) == (
        7,
        connection.started["pid"],
        connection.started["start_time"],
    )
    assert record.started_at == connection.started["started_at"] < record.time
    assert record.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert sorted(lab.log(connection)) == [("stderr", "err\n"), ("stdout", "out\n")]
    assert read_state(directory) is None
    assert sorted(p.name for p in directory.iterdir()) == [f"{directory.name}-json.log", "exit.json"]


def test_a_signal_is_128_plus_its_number(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    connection.kill(signal.SIGKILL)
    event = wait_exit(connection)
    assert (event["status"], event["signal"]) == (137, 9)


def test_state_while_running(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    state = connection.state()
    assert state["status"] == "running"
    assert state["pid"] == connection.started["pid"]
    written = read_state(lab.container_directory(connection))
    assert written is not None
    assert written.monitor.pid == state["monitor"]["pid"] != written.pid
    assert Path(f"/proc/{written.monitor.pid}/cmdline").read_bytes().startswith(b"proa monitor ")  # it has answered
    assert Path(f"/proc/{written.monitor.pid}/comm").read_text().startswith("proa:")
    assert written.cgroup.startswith("/proa/")


def test_the_monitor_is_its_own_session_outside_the_containers_cgroup(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    state = connection.state()
    monitor = state["monitor"]["pid"]
    assert os.getsid(monitor) == monitor
    assert state["cgroup"] not in Path(f"/proc/{monitor}/cgroup").read_text()
    assert state["cgroup"] in Path(f"/proc/{state['pid']}/cgroup").read_text()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        os.kill(monitor, number)
    assert connection.state()["status"] == "running"


def test_the_socket_is_private(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    assert stat.S_IMODE(os.stat(connection.path).st_mode) == 0o600


def test_the_socket_needs_a_private_directory(lab: Lab) -> None:
    request = lab.request("true")
    public = lab.directory / "public"
    public.mkdir()
    public.chmod(0o755)
    request["socket"] = str(public / "m.sock")
    with pytest.raises(Denied, match="open to others"):
        lab.submit(request)
    public.rmdir()


def test_long_socket_paths(lab: Lab) -> None:
    deep = lab.directory
    for _ in range(3):
        deep = deep / ("d" * 90)
        deep.mkdir(mode=0o700)
    request = lab.request("sleep", "60")
    request["socket"] = str(deep / "monitor.sock")
    connection = lab.submit(request)
    assert connection.state()["status"] == "running"
    again = MonitorConnection.connect(request["socket"])
    again.kill(9)
    assert wait_exit(again)["status"] == 137
    again.close()
    wait_until(lambda: not (deep / "monitor.sock").exists())


@pytest.mark.parametrize(
    ("change", "kind", "code"),
    [
        ({"args": ["no-such-command"]}, NotFound, "command-not-found"),
        ({"args": ["/etc"]}, Denied, "command-not-executable"),
    ],
)
def test_a_failed_start_is_typed_and_leaves_nothing(
    lab: Lab, change: dict[str, list[str]], kind: type[Exception], code: str
) -> None:
    request = lab.request("true")
    request["config"]["process"].update(change)
    with pytest.raises(kind) as caught:
        lab.submit(request)
    assert getattr(caught.value, "code", "") == code
    assert not os.path.exists(request["socket"])
    assert [p.name for p in Path(request["dir"]).iterdir() if not p.name.endswith("-json.log")] == []
    # The same container can be started once the fault is mended.
    request["config"]["process"]["args"] = ["true"]
    assert wait_exit(lab.submit(request))["status"] == 0


def test_a_bad_request_is_refused(lab: Lab) -> None:
    with pytest.raises(Invalid):
        lab.nursery.start_container({"id": "x"})
    request = lab.request("true")
    with pytest.raises(Invalid, match="log driver"):
        lab.submit({**request, "log": {"driver": "nonsense"}})


def test_a_missing_directory_is_an_error_that_undoes_the_rest(lab: Lab) -> None:
    request = lab.request("true")
    request["dir"] += "-missing"
    with pytest.raises(Exception, match="No such file"):
        lab.submit(request)
    assert not os.path.exists(request["socket"])
    (lab.directory / "nursery.log").write_text("")  # the monitor reported the unexpected


def test_an_old_exit_record_is_gone_when_the_container_runs_again(lab: Lab) -> None:
    request = lab.request("sh", "-c", "exit 3")
    assert wait_exit(lab.submit(request))["status"] == 3
    request["config"]["process"]["args"] = ["sleep", "60"]
    second = lab.submit(request)
    assert not (Path(request["dir"]) / "exit.json").exists()
    second.kill(9)
    assert wait_exit(second)["status"] == 137
    assert json.loads((Path(request["dir"]) / "exit.json").read_bytes())["status"] == 137


def test_big_environments_pass(lab: Lab) -> None:
    request = lab.request("sh", "-c", 'echo "${#BIG0} ${#BIG14}"')
    request["config"]["process"]["env"] += [f"BIG{n}={'x' * 100_000}" for n in range(15)]
    # execve(2) limits all strings to a quarter of the stack limit, 2 MiB by default.
    ours, theirs = lab.pair()
    with theirs:
        lab.submit({**request, "attach": [{}]}, {"attach": [theirs.fileno()]})
    assert unframe(receive_all(ours)) == {1: b"100000 100000\n"}


def test_background_children_do_not_hold_the_exit(lab: Lab) -> None:
    connection = lab.start("sh", "-c", "sleep 100 & echo done")
    assert wait_exit(connection, 5)["status"] == 0
    assert lab.log(connection) == [("stdout", "done\n")]


def test_background_children_end_with_the_init_in_the_hosts_pid_namespace(lab: Lab) -> None:
    connection = lab.start("sh", "-c", "sleep 100 & echo done", namespaces=("mount", "uts", "ipc", "network"))
    assert wait_exit(connection, 5)["status"] == 0
    assert lab.log(connection) == [("stdout", "done\n")]


def test_memory_limit_reports_oom(lab: Lab) -> None:
    request = lab.request("sh", "-c", "x=a; while true; do x=$x$x; done")
    request["config"]["linux"]["resources"]["memory"] = {"limit": 16 << 20}
    event = wait_exit(lab.submit(request))
    assert event["oom"] is True
    assert event["status"] == 137


def test_the_network_namespace_comes_ready(lab: Lab) -> None:
    netns = lab.nursery.make_netns()
    request = lab.request("sh", "-c", "ls -l /proc/self/ns/net; ls /sys/class/net")
    request["config"]["linux"]["namespaces"] = [
        n for n in request["config"]["linux"]["namespaces"] if n["type"] != "network"
    ]
    connection = lab.submit(request, {"netns": netns.netns_fd})
    inode = os.fstat(netns.netns_fd).st_ino
    assert inode != os.stat("/proc/self/ns/net").st_ino
    for fd in netns:
        if fd >= 0:
            kind = os.readlink(f"/proc/self/fd/{fd}").partition(":")[0]
            assert kind in ("net", "socket", f"/proc/{os.getpid()}/ns/net")
            os.close(fd)
    assert wait_exit(connection)["status"] == 0
    output = "".join(text for _, text in lab.log(connection))
    assert f"net:[{inode}]" in output
    assert output.split()[-1] == "lo"


def test_many_starts_at_once(lab: Lab) -> None:
    requests = [lab.request("sh", "-c", f"exit {n}", durable=False) for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        connections = list(pool.map(lab.submit, requests))
        assert [wait_exit(c)["status"] for c in connections] == list(range(24))


def test_a_nursery_that_is_gone_is_a_typed_error(busybox_root: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    nursery = Nursery.start(tmp_path)
    nursery.make_netns()
    os.kill(nursery.pid, signal.SIGKILL)
    time.sleep(0.1)
    with pytest.raises(Unavailable):
        nursery.make_netns()
    nursery.close()
