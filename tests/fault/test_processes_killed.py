"""kill -9 of the nursery and of monitors: the engine notices, says so once, and everything works again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import leaks
import pytest
from engines import PrivateEngine, kill_and_wait, until

from proa.runtime import cgroups

pytestmark = pytest.mark.root


def cgroups_of(container: str) -> list[str]:
    return [c for c in leaks.cgroups() if container in c]


def test_a_killed_nursery_is_replaced(busybox: PrivateEngine) -> None:
    busybox.proa("run", "-d", "--name", "running", "--network", "none", "busybox", "sleep", "1000")
    for attempt in range(3):
        kill_and_wait(busybox.nursery_pid())
        assert busybox.sh(f"echo {attempt}") == str(attempt)
    assert busybox.out("exec", "running", "echo", "alive") == "alive"
    kill_and_wait(busybox.nursery_pid())
    assert busybox.out("exec", "running", "echo", "alive") == "alive"
    # the network namespace, too, comes from a nursery
    assert "eth0" in busybox.out("run", "--rm", "busybox", "ip", "link")


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_a_killed_monitor_ends_its_container_once(busybox: PrivateEngine, network: str) -> None:
    busybox.proa(
        "run", "-d", "--name", "orphan", "--network", network, "busybox",
        "sh", "-c", "echo said; sleep 1000 & sleep 1000 & wait",
    )  # fmt: skip
    found = busybox.inspect("orphan")
    init = Path(f"/proc/{found['State']['Pid']}")
    inside = Path(f"/proc/{init.name}/task/{init.name}/children")
    children = until(lambda: len(c := inside.read_text().split()) == 2 and c, "the container's own children")
    until(lambda: busybox.out("logs", "orphan") == "said", "the log")
    watching = busybox.popen("events", "--filter", "container=orphan", "--format", "{{.Action}}", bufsize=0)
    waiting = busybox.popen("wait", "orphan")
    assert cgroups_of(found["Id"])

    kill_and_wait(busybox.monitor_pid("orphan"))
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, out) == (0, b"137\n"), err
    state = busybox.inspect("orphan")["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 137, 0)
    assert "monitor" in state["Error"]
    for pid in (init.name, *children):
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), f"process {pid} of the container to end")
    until(lambda: not cgroups_of(found["Id"]), "its cgroups to go")
    assert "Exited (137)" in busybox.out("ps", "-a", "--filter", "name=orphan", "--format", "{{.Status}}")
    assert busybox.out("logs", "orphan") == "said"
    assert busybox.proa("exec", "orphan", "true", check=False).returncode == 1
    assert busybox.proa("kill", "orphan", check=False).returncode == 1

    busybox.proa("start", "orphan")
    assert busybox.inspect("orphan")["State"]["Error"] == ""
    assert busybox.out("exec", "orphan", "echo", "alive") == "alive"
    busybox.proa("rm", "-f", "orphan")
    assert watching.stdout is not None
    seen: list[bytes] = []
    while b"destroy" not in seen:
        seen.append(watching.stdout.readline().strip())
        assert seen[-1], seen
    watching.kill()
    watching.communicate()
    # Declared dead once by the monitor's end, once more by `rm -f` of its second life.
    assert seen.count(b"die") == 2, seen


def test_a_killed_monitor_of_an_attached_client(busybox: PrivateEngine) -> None:
    for options in ((), ("--rm",)):
        client = busybox.popen(
            "run", *options, "--name", "attached", "--network", "none", "busybox",
            "sh", "-c", "echo ready; sleep 1000", bufsize=0,
        )  # fmt: skip
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        kill_and_wait(busybox.monitor_pid("attached"))
        _, err = client.communicate(timeout=30)
        assert client.returncode == 137, err
        if not options:
            busybox.proa("rm", "attached")
        assert busybox.containers() == []


def test_engine_and_monitor_killed_together(busybox: PrivateEngine) -> None:
    busybox.proa("run", "-d", "--name", "orphan", "busybox", "sh", "-c", "sleep 1000 & sleep 1000")
    found = busybox.inspect("orphan")
    init = Path(f"/proc/{found['State']['Pid']}")
    monitor = busybox.monitor_pid("orphan")
    busybox.kill_engine()
    kill_and_wait(monitor)
    assert init.exists()
    state = busybox.inspect("orphan")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    assert "monitor" in state["Error"]
    until(lambda: not init.exists(), "the container's first process to end")
    until(lambda: not cgroups_of(found["Id"]), "its cgroups to go")
    finished = state["FinishedAt"]
    busybox.kill_engine()
    assert busybox.inspect("orphan")["State"]["FinishedAt"] == finished
    busybox.proa("start", "orphan")
    busybox.proa("stop", "-t", "0", "orphan")


def test_a_killed_monitor_of_an_engine_that_lost_its_record(busybox: PrivateEngine) -> None:
    """A process that has the recorded pid now is not the container: it must not be killed."""
    busybox.proa("create", "--name", "made", "--network", "none", "busybox", "true")
    found = busybox.inspect("made")
    bystander = busybox.popen("events")
    try:
        busybox.kill_engine()
        directory = busybox.root / "containers" / found["Id"]
        record = json.loads((directory / "container.json").read_bytes())
        record["state"] = {"status": "running", "pid": bystander.pid}
        (directory / "container.json").write_text(json.dumps(record))
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        monitor = {"pid": bystander.pid, "start_time": 1, "boot_id": boot_id}
        (directory / "monitor.json").write_text(json.dumps(monitor))
        assert busybox.inspect("made")["State"]["ExitCode"] == 137
    finally:
        assert bystander.poll() is None or bystander.returncode != -9
        bystander.kill()
        bystander.communicate()


@pytest.mark.parametrize("options", [("--pid", "host"), ("--init",), ("--rm",)])
def test_nothing_of_a_container_outlives_its_monitor(busybox: PrivateEngine, options: tuple[str, ...]) -> None:
    """Also not what the first process's death does not end, nor what is frozen, nor an exec."""
    script = "echo $$; sleep 1000 & sleep 1000 & wait"
    busybox.proa("run", "-d", *options, "--name", "orphan", "--network", "none", "busybox", "sh", "-c", script)
    found = busybox.inspect("orphan")
    client = busybox.popen("exec", "orphan", "sh", "-c", "echo ready; sleep 1000", bufsize=0)
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    inside = until(lambda: len(p := processes_in(found["Id"])) >= 4 and p, "all processes of the container")
    busybox.proa("pause", "orphan")
    kill_and_wait(busybox.monitor_pid("orphan"))
    for pid in inside:
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), f"process {pid} of the container to end")
    until(lambda: not cgroups_of(found["Id"]), "its cgroups to go")
    _, err = client.communicate(timeout=30)
    assert client.returncode not in (0, None), err
    if options == ("--rm",):
        until(lambda: busybox.containers() == [], "the container to be removed")
    else:
        until(lambda: busybox.inspect("orphan")["State"]["ExitCode"] == 137, "the exit to be known")


def processes_in(container: str) -> list[str]:
    return [pid for c in cgroups_of(container) if "/pids/" in c for pid in leaks.read(Path(c, "cgroup.procs")).split()]


def test_a_start_that_found_leftovers_clears_them(busybox: PrivateEngine) -> None:
    """As of a launcher that was killed in the middle of a start."""
    busybox.proa("create", "--name", "made", "--network", "none", "busybox", "echo", "ran")
    engine_id = (busybox.root / "engine-id").read_text().strip()
    path = f"/proa/{engine_id}-{busybox.inspect('made')['Id']}"
    left = cgroups.create(path)
    stray = subprocess.Popen(["sleep", "1000"])
    for directory in left.directories.values():
        Path(directory, "cgroup.procs").write_text(str(stray.pid))
    try:
        refused = busybox.proa("start", "-a", "made", check=False)
        assert refused.returncode != 0
        assert stray.wait(20) == -9
        assert not cgroups_of(path)
        assert busybox.out("start", "-a", "made") == "ran"
    finally:
        stray.kill()
        stray.wait()
