"""Who dies and what stays: the engine, the nursery, the monitor; and what the nursery may not do."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from monitorlab import Lab, unframe, wait_exit, wait_until

from proa.errors import NotFound
from proa.linux import process
from proa.monitor.client import MonitorConnection
from proa.monitor.protocol import Attach, ExecRequest
from proa.runtime import cgroups

pytestmark = pytest.mark.root

ENGINE = """
import json, sys, time
from pathlib import Path
from proa.monitor.nursery import Nursery
request = json.loads(sys.stdin.readline())
nursery = Nursery.start(Path(sys.argv[1]))
connection = nursery.start_container(request)
print(json.dumps(dict(connection.started) | {"nursery": nursery.pid}), flush=True)
time.sleep(100)
"""


def test_kill_9_of_the_engine_loses_nothing(lab: Lab) -> None:
    request = lab.request("sh", "-c", "read x; echo got $x; exit 6", stdin=True)
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE, str(lab.directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert engine.stdin is not None
    assert engine.stdout is not None
    engine.stdin.write(json.dumps(request) + "\n")
    engine.stdin.flush()
    started = json.loads(engine.stdout.readline())
    engine.kill()
    engine.wait()
    engine.stdin.close()
    engine.stdout.close()
    wait_until(lambda: not os.path.exists(f"/proc/{started['nursery']}"))  # ends with its engine
    connection = MonitorConnection.connect(request["socket"])
    lab.connections.append(connection)
    assert connection.state()["pid"] == started["pid"]
    client = lab.attach(connection)
    lab.attach(connection, Attach(streams=(), stdin=True)).sendall(b"it\n")
    assert wait_exit(connection)["status"] == 6
    assert unframe(client.recv(1000)) == {1: b"got it\n"}
    assert json.loads((Path(request["dir"]) / "exit.json").read_bytes())["status"] == 6


def test_an_exit_nobody_watches_is_recorded(lab: Lab) -> None:
    request = lab.request("sh", "-c", "sleep 0.3; exit 8")
    connection = lab.submit(request)
    connection.close()
    lab.connections.remove(connection)
    wait_until(lambda: (Path(request["dir"]) / "exit.json").exists())
    assert json.loads((Path(request["dir"]) / "exit.json").read_bytes())["status"] == 8
    wait_until(lambda: not os.path.exists(request["socket"]))
    with pytest.raises(NotFound):
        MonitorConnection.connect(request["socket"])


def test_kill_9_of_the_nursery_leaves_containers_running(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    os.kill(lab.nursery.pid, signal.SIGKILL)
    assert connection.state()["status"] == "running"
    connection.kill(9)
    assert wait_exit(connection)["status"] == 137


def test_kill_9_of_the_monitor_leaves_the_container_to_the_engine(lab: Lab) -> None:
    """The init goes on (its output then fails with EPIPE); monitor.json says whom to end; no exit is invented."""
    request = lab.request("sleep", "60")
    connection = lab.submit(request)
    state = json.loads((Path(request["dir"]) / "monitor.json").read_bytes())
    os.kill(state["monitor"]["pid"], signal.SIGKILL)
    assert connection.next_event(5) is None
    assert process.start_time(state["pid"]) == state["start_time"]
    assert not (Path(request["dir"]) / "exit.json").exists()
    with pytest.raises(NotFound):
        connection.state()
    os.kill(state["pid"], signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{state['pid']}"))
    os.unlink(request["socket"])
    cgroup = cgroups.open_existing(state["cgroup"])
    assert cgroup is not None
    cgroup.remove()


def test_the_nursery_is_one_thread_from_a_sealed_copy(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    for pid in (lab.nursery.pid, connection.state()["monitor"]["pid"]):
        assert len(os.listdir(f"/proc/{pid}/task")) == 1
        assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:proa")
        with pytest.raises(OSError, match="busy") as caught:
            os.open(f"/proc/{pid}/exe", os.O_WRONLY)
        assert caught.value.errno == errno.ETXTBSY
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.getsid(pid) == pid
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Umask:\t0077" in status
    assert Path(f"/proc/{lab.nursery.pid}/cmdline").read_bytes().startswith(b"proa nursery")


def test_nothing_is_imported_after_the_freeze(lab: Lab) -> None:
    """A refused import is told in nursery.log, which the fixture wants empty: go through everything once."""
    connection = lab.start("sh", "-c", "read x; exit 1", stdin=True, tty=True)
    connection.exec(ExecRequest.of("e", {"args": ["true"], "cwd": "/", "env": ["PATH=/bin"]}))
    with pytest.raises(NotFound):
        connection.exec(ExecRequest.of("f", {"args": ["nothing"], "cwd": "/", "env": ["PATH=/bin"]}))
    connection.resize(10, 10)
    connection.pause()
    connection.resume()
    connection.kill(28)
    connection.state()
    for fd in lab.nursery.make_netns():
        if fd >= 0:
            os.close(fd)
    lab.attach(connection).close()
    connection.kill(9)
    wait_exit(connection)
    assert (lab.directory / "nursery.log").read_text() == ""


def test_children_of_the_nursery_are_reaped(lab: Lab) -> None:
    for _ in range(3):
        wait_exit(lab.start("true"))
    time.sleep(0.2)
    pids = Path(f"/proc/{lab.nursery.pid}/task/{lab.nursery.pid}/children").read_text().split()
    states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids]
    assert "Z" not in states
    assert len(pids) <= 1  # the spare monitor


def test_an_idle_monitor_is_small(lab: Lab) -> None:
    connections = [lab.start("sleep", "60", log={"driver": "json-file"}) for _ in range(8)]
    monitors = [
        json.loads((lab.container_directory(c) / "monitor.json").read_bytes())["monitor"]["pid"] for c in connections
    ]
    time.sleep(0.3)
    private = []
    for pid in monitors:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        private += [int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")]
    assert sorted(private)[len(private) // 2] < 1000
