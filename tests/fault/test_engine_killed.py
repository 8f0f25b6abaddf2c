"""kill -9 of the engine: containers go on, clients get everything, the next engine knows what happened."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from engines import PrivateEngine, kill_and_wait, until

pytestmark = pytest.mark.root

# Prints until told to stop, then says so on stderr: nothing of it may get lost, however often the engine dies.
COUNT = "i=0; while [ ! -e /stop ]; do echo line $i; i=$((i+1)); usleep 2000; done; echo end $i >&2; exit 7"


def check_lines(out: bytes, err: bytes) -> int:
    lines = out.decode().splitlines()
    assert lines == [f"line {i}" for i in range(len(lines))]
    assert err.decode() == f"end {len(lines)}\n"
    return len(lines)


def test_an_attached_client_gets_all_output_and_the_exit_status(busybox: PrivateEngine) -> None:
    client = busybox.popen("run", "--name", "counter", "--network", "none", "busybox", "sh", "-c", COUNT, bufsize=0)
    assert client.stdout is not None
    first = client.stdout.readline()
    init = busybox.inspect("counter")["State"]["Pid"]
    busybox.kill_engine()
    for _ in range(20):
        first += client.stdout.readline()

    busybox.proa("exec", "counter", "touch", "/stop")  # the next engine knows the container
    out, err = client.communicate(timeout=30)
    assert client.returncode == 7, err
    count = check_lines(first + out, err)
    state = busybox.inspect("counter")["State"]
    assert (state["Status"], state["ExitCode"], state["Error"]) == ("exited", 7, "")
    logs = busybox.proa("logs", "counter")
    assert check_lines(logs.stdout, logs.stderr) == count
    assert not Path(f"/proc/{init}").exists()
    # and it is an ordinary container again
    busybox.proa("start", "counter")
    busybox.proa("rm", "-f", "counter")


def test_an_auto_remove_client_gets_the_exit_status_and_the_container_goes(busybox: PrivateEngine) -> None:
    client = busybox.popen(
        "run", "--rm", "--name", "counter", "--network", "none", "busybox", "sh", "-c", COUNT, bufsize=0
    )
    assert client.stdout is not None
    first = client.stdout.readline()
    busybox.kill_engine()
    busybox.proa("exec", "counter", "touch", "/stop")
    out, err = client.communicate(timeout=30)
    assert (client.returncode, err[:3]) == (7, b"end")
    check_lines(first + out, err)
    assert busybox.containers() == []


@pytest.mark.parametrize("options", [(), ("--rm",)])
def waits_for_word(engine: PrivateEngine) -> tuple[Path, list[str]]:
    """A FIFO, and options and command of a container that ends with 8 when something is written to it."""
    fifo = engine.directory / "fifo"
    os.mkfifo(fifo)
    script = "echo started; read x < /go/fifo; echo got $x; exit 8"
    return fifo, ["--network", "none", "-v", f"{engine.directory}:/go", "busybox", "sh", "-c", script]


@pytest.mark.parametrize("options", [(), ("--rm",)])
def test_a_client_whose_container_ends_without_an_engine(busybox: PrivateEngine, options: tuple[str, ...]) -> None:
    fifo, command = waits_for_word(busybox)
    client = busybox.popen("run", *options, "--name", "reader", *command, bufsize=0)
    assert client.stdout is not None
    assert client.stdout.readline() == b"started\n"
    monitor = busybox.monitor_pid("reader")
    client.send_signal(signal.SIGSTOP)  # it would start the next engine at once
    try:
        busybox.kill_engine()
        fifo.write_text("word\n")
        until(lambda: not Path(f"/proc/{monitor}").exists(), "the container to end")
        assert not busybox.running()
    finally:
        client.send_signal(signal.SIGCONT)
    out, err = client.communicate(timeout=30)
    assert (client.returncode, out, err) == (8, b"got word\n", b"")
    until(lambda: busybox.containers() == ([] if options else ["reader"]), "the container to be removed")


def test_an_exit_while_no_engine_runs_is_known_afterwards(busybox: PrivateEngine) -> None:
    fifo, command = waits_for_word(busybox)
    busybox.proa("run", "-d", "--name", "quiet", *command)
    init = busybox.inspect("quiet")["State"]["Pid"]
    monitor = busybox.monitor_pid("quiet")
    busybox.kill_engine()
    fifo.write_text("go\n")
    until(lambda: not Path(f"/proc/{init}").exists(), "the container to end")
    until(lambda: not Path(f"/proc/{monitor}").exists(), "its monitor to end")
    assert not busybox.running()
    state = busybox.inspect("quiet")["State"]
    assert (state["Status"], state["ExitCode"], state["Running"], state["Pid"]) == ("exited", 8, False, 0)
    assert state["FinishedAt"] > state["StartedAt"]
    assert busybox.out("logs", "quiet") == "started\ngot go"
    assert busybox.out("wait", "quiet") == "8"


def test_everything_works_on_a_container_of_an_earlier_engine(busybox: PrivateEngine) -> None:
    busybox.proa("run", "-d", "-p", "127.0.0.1::80", "--name", "served", "busybox", "httpd", "-f", "-h", "/etc")
    before = busybox.inspect("served")
    port = busybox.out("port", "served", "80")
    busybox.kill_engine()
    after = busybox.inspect("served")
    assert busybox.out("port", "served", "80") == port
    for key in ("Id", "State", "NetworkSettings", "Config", "HostConfig", "Mounts"):
        assert after[key] == before[key], key
    fetch = ["wget", "-qO-", f"http://{before['NetworkSettings']['IPAddress']}/os-release"]
    assert "ID=busybox" in busybox.out("run", "--rm", "busybox", *fetch)
    assert "httpd" in busybox.out("top", "served")
    busybox.proa("pause", "served")
    busybox.kill_engine()
    assert busybox.inspect("served")["State"]["Status"] == "paused"
    busybox.proa("unpause", "served")
    assert busybox.out("exec", "served", "echo", "in") == "in"
    busybox.proa("stop", "-t", "0", "served")
    assert busybox.inspect("served")["State"]["ExitCode"] == 137
    busybox.proa("start", "served")
    assert busybox.inspect("served")["State"]["Running"] is True


def test_an_exec_outlives_the_engine(busybox: PrivateEngine) -> None:
    busybox.proa("run", "-d", "--name", "host", "--network", "none", "busybox", "sleep", "1000")
    client = busybox.popen(
        "exec", "-i", "host", "sh", "-c", "echo ready; read x; echo got $x; exit 5", stdin=-1, bufsize=0
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    busybox.kill_engine()
    assert busybox.out("exec", "host", "echo", "beside") == "beside"
    out, err = client.communicate(b"words\n", timeout=30)
    assert (client.returncode, out) == (5, b"got words\n"), err
    client = busybox.popen(
        "exec", "-i", "host", "sh", "-c", "echo ready; read x; echo got $x; exit 6", stdin=-1, bufsize=0
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    busybox.kill_engine()
    out, err = client.communicate(b"words\n", timeout=30)  # it ends while no engine runs
    assert (client.returncode, out) == (6, b"got words\n"), err


def test_kill_during_run(busybox: PrivateEngine) -> None:
    """Whatever moment it is: afterwards the container is there and consistent, or not there at all."""
    record = busybox.root / "containers"
    for moment in ("asked", "recorded", "started"):
        client = busybox.popen("run", "-d", "--name", f"at-{moment}", "--network", "none", "busybox", "sleep", "1000")
        if moment == "recorded":
            until(lambda: list(record.iterdir()), "the container's directory")
        elif moment == "started":
            until(lambda: list(record.glob("*/monitor.json")), "the monitor's record")
        kill_and_wait(busybox.pid, signal.SIGKILL)
        client.communicate(timeout=60)
        for name in busybox.containers():
            state = busybox.inspect(name)["State"]
            assert state["Status"] in ("created", "running"), (moment, state)
            assert (state["Pid"] > 0) is state["Running"]
            if state["Running"]:
                assert os.path.exists(f"/proc/{state['Pid']}")
            else:
                busybox.proa("start", name)
            assert busybox.out("exec", name, "echo", "alive") == "alive"
            busybox.proa("rm", "-f", name)
        # The name is free again, and no directory or snapshot stays.
        assert not list(record.iterdir())
        stored = busybox.stored()["snapshots"]
        assert not [s for s in stored if "container" in s], stored
        busybox.proa("run", "--rm", "--name", f"at-{moment}", "--network", "none", "busybox", "true")


def test_a_record_that_is_cut_short_costs_only_its_container(busybox: PrivateEngine) -> None:
    for name in ("whole", "cut"):
        busybox.proa("create", "--name", name, "--network", "none", "busybox", "true")
    broken = busybox.inspect("cut")["Id"]
    busybox.kill_engine()
    path = busybox.root / "containers" / broken / "container.json"
    path.write_bytes(path.read_bytes()[:100])
    assert busybox.containers() == ["whole"]
    assert json.loads(busybox.proa("inspect", "whole").stdout)[0]["State"]["Status"] == "created"
    busybox.proa("start", "-a", "whole")


def test_kill_during_commit_leaves_nothing_frozen(busybox: PrivateEngine) -> None:
    script = "dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null; echo written; exec sleep 1000"
    busybox.proa("run", "-d", "--name", "committed", "--network", "none", "busybox", "sh", "-c", script)
    until(lambda: busybox.out("logs", "committed") == "written", "the file to be there")
    init = busybox.inspect("committed")["State"]["Pid"]
    client = busybox.popen("commit", "committed", "half:1")
    until(lambda: frozen(init), "the container to be frozen", 10)
    busybox.kill_engine()
    client.communicate(timeout=30)
    assert client.returncode == 1
    assert frozen(init)
    assert busybox.out("exec", "committed", "echo", "thawed") == "thawed"
    assert busybox.inspect("committed")["State"]["Status"] == "running"
    assert busybox.out("images", "-q", "half") == ""
    busybox.proa("commit", "committed", "whole:1")
    assert busybox.sh("wc -c < /big", image="whole:1") == str(64 << 20)


def frozen(pid: int) -> bool:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "freezer":
            return Path(f"/sys/fs/cgroup/freezer{path}/freezer.state").read_text().strip() == "FROZEN"
        if not controllers and (events := Path(f"/sys/fs/cgroup{path}/cgroup.events")).exists():
            return "frozen 1" in events.read_text()
    return False
