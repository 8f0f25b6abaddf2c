"""Containers that end at once: their launchers see to the end, and nothing is lost when these do not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from monitorlab import Lab, receive_all, unframe, wait_exit, wait_until

from proa.monitor.records import read_exit, read_state

pytestmark = pytest.mark.root

SCRIPT = "echo out; sleep 0.01; echo err >&2; exit 7"


def launcher_of(monitor: int, init: int) -> int | None:
    """The monitor's other child, which may have gone already."""
    children = Path(f"/proc/{monitor}/task/{monitor}/children")
    try:
        found = [int(child) for child in children.read_text().split()]
    except OSError:
        return None
    return next((child for child in found if child != init), None)


def taken_over(monitor: int) -> bool:
    try:
        return Path(f"/proc/{monitor}/cmdline").read_bytes().startswith(b"proa monitor ")
    except OSError:
        return True  # it has ended


def send(pid: int | None, number: int) -> None:
    try:
        if pid is not None:
            os.kill(pid, number)
    except ProcessLookupError:
        pass


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_the_end_is_told_without_the_launcher(lab: Lab, how: str) -> None:
    connection, client = lab.start_attached("sh", "-c", SCRIPT)
    directory = lab.container_directory(connection)
    state = read_state(directory)
    monitor = state.monitor.pid if state is not None else 0
    init = int(connection.started["pid"])
    wait_until(lambda: taken_over(monitor))  # the launcher has nothing more to say
    launcher = launcher_of(monitor, init)
    if how == "killed":
        send(launcher, signal.SIGKILL)
    else:
        send(launcher, signal.SIGSTOP)
        try:
            wait_until(lambda: not Path(f"/proc/{init}").exists())  # its monitor has collected it
            time.sleep(0.05)
        finally:
            send(launcher, signal.SIGKILL)
    assert wait_exit(connection)["status"] == 7
    assert unframe(receive_all(client)) == {1: b"out\n", 2: b"err\n"}
    record = read_exit(directory)
    assert record is not None
    assert (record.status, record.pid) == (7, init)
    assert connection.next_event(5) is None
    assert sorted(lab.log(connection)) == [("stderr", "err\n"), ("stdout", "out\n")]


@pytest.mark.parametrize("pause", ["0", "0.02", "0.03", "0.04", "0.1"])
def test_ends_around_the_time_when_the_launcher_goes(lab: Lab, pause: str) -> None:
    connection, client = lab.start_attached("sh", "-c", f"sleep {pause}; exit 3")
    quiet = lab.start("sh", "-c", f"echo line; sleep {pause}; exit 4")
    assert wait_exit(connection)["status"] == 3
    assert receive_all(client) == b""
    assert wait_exit(quiet)["status"] == 4
    assert lab.log(quiet) == [("stdout", "line\n")]
    for each in (connection, quiet):
        assert each.next_event(5) is None
        assert read_state(lab.container_directory(each)) is None


def test_a_signal_that_ends_it_at_once(lab: Lab) -> None:
    connection = lab.start("sh", "-c", "kill -9 1; sleep 0.01; exit 9")  # process 1 is safe from itself
    assert wait_exit(connection)["status"] == 9
    connection = lab.start("sleep", "60")
    connection.kill(signal.SIGKILL)
    event = wait_exit(connection)
    assert (event["status"], event["signal"]) == (137, 9)


def test_a_monitor_and_its_launcher_leave_no_process(lab: Lab) -> None:
    connection = lab.start("true")
    state = read_state(lab.container_directory(connection))
    wait_exit(connection)
    if state is not None:  # else it had ended before it could be read
        wait_until(lambda: not Path(f"/proc/{state.monitor.pid}").exists())
