"""Somebody stops a process of the engine with SIGSTOP: what depends on it waits or is done without it, nothing else."""

from __future__ import annotations

import os
import signal
import time

import pytest
from engines import PrivateEngine, until

pytestmark = pytest.mark.root


def run(busybox: PrivateEngine, name: str, *command: str) -> str:
    return busybox.out("run", "-d", "--name", name, "--network", "none", "busybox", *(command or ("sleep", "1000")))


def test_a_stopped_monitor_delays_the_next_engine_little(busybox: PrivateEngine) -> None:
    for name in ("well", "still", "still2"):
        run(busybox, name)
    monitors = [busybox.monitor_pid(name) for name in ("still", "still2")]
    try:
        for pid in monitors:
            os.kill(pid, signal.SIGSTOP)
        busybox.kill_engine()
        begun = time.monotonic()
        assert sorted(busybox.containers()) == ["still", "still2", "well"]
        assert time.monotonic() - begun < 4.5
        assert busybox.out("ps", "--format", "{{.Names}}", "--filter", "status=running").split() != ["well"]
        assert busybox.out("exec", "well", "echo", "served") == "served"
    finally:
        for pid in monitors:
            os.kill(pid, signal.SIGCONT)
    assert busybox.out("exec", "still", "echo", "again") == "again"
    busybox.proa("kill", "still")
    until(lambda: not busybox.inspect("still")["State"]["Running"])
    assert busybox.inspect("still")["State"]["ExitCode"] == 137


def test_what_a_late_monitor_tells_is_taken_over(busybox: PrivateEngine) -> None:
    """It was paused when its engine died, and stopped when the next one came."""
    run(busybox, "late")
    busybox.proa("pause", "late")
    pid = busybox.monitor_pid("late")
    os.kill(pid, signal.SIGSTOP)
    busybox.kill_engine()
    assert busybox.inspect("late")["State"]["Paused"]
    os.kill(pid, signal.SIGCONT)
    busybox.proa("unpause", "late")
    assert busybox.out("exec", "late", "echo", "thawed") == "thawed"


def test_a_container_whose_monitor_was_stopped_can_be_removed(busybox: PrivateEngine) -> None:
    run(busybox, "stuck")
    init = busybox.inspect("stuck")["State"]["Pid"]
    os.kill(busybox.monitor_pid("stuck"), signal.SIGSTOP)
    begun = time.monotonic()
    busybox.proa("rm", "-f", "stuck")
    assert time.monotonic() - begun < 12
    until(lambda: not os.path.exists(f"/proc/{init}"), "the first process to end")
    run(busybox, "stuck")


def test_a_container_whose_monitor_was_stopped_can_be_stopped_and_killed(busybox: PrivateEngine) -> None:
    run(busybox, "asked", "sh", "-c", "trap 'echo bye > /said; exit 5' TERM; touch /ready; while :; do sleep 0.1; done")
    until(lambda: busybox.proa("exec", "asked", "ls", "/ready", check=False).returncode == 0)
    run(busybox, "killed")
    for name, command in (("asked", ("stop", "-t", "1")), ("killed", ("kill",))):
        os.kill(busybox.monitor_pid(name), signal.SIGSTOP)
        begun = time.monotonic()
        busybox.proa(*command, name)
        assert time.monotonic() - begun < 20
        assert busybox.inspect(name)["State"]["ExitCode"] == 137
    busybox.proa("cp", "asked:/said", str(busybox.directory / "said"))
    assert (busybox.directory / "said").read_text() == "bye\n"


def test_a_stopped_nursery_is_replaced(busybox: PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    run(busybox, "first")
    nursery = busybox.nursery_pid()
    os.kill(nursery, signal.SIGSTOP)
    assert busybox.out("run", "--rm", "--network", "none", "busybox", "echo", "started") == "started"
    assert busybox.nursery_pid() != nursery


def test_a_nursery_killed_again_and_again(busybox: PrivateEngine) -> None:
    """Each start either works or says why; none leaves anything, and the next one works."""
    run(busybox, "first")
    outcomes = []
    for _ in range(12):
        starting = busybox.popen("run", "--rm", "--network", "none", "busybox", "echo", "started")
        time.sleep(0.004 * len(outcomes))
        try:
            os.kill(busybox.nursery_pid(), signal.SIGKILL)
        except (AssertionError, ProcessLookupError):
            pass
        out, err = starting.communicate(timeout=60)
        assert (starting.returncode, out) == (0, b"started\n") or b"hint: " in err, (out, err)
        outcomes.append(starting.returncode)
    assert outcomes.count(0) >= 6, outcomes
    assert busybox.containers() == ["first"]
    assert busybox.out("run", "--rm", "--network", "none", "busybox", "echo", "started") == "started"
