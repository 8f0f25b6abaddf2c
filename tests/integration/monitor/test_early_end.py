"""Containers that end at once: their launchers see to the end, and hand over what lasts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from engines import parent
from monitorlab import Lab, receive_all, receive_until, unframe, wait_exit, wait_until

from proa.monitor.protocol import Attach, ExecRequest
from proa.monitor.records import read_exit, read_state
from proa.runtime import cgroups

pytestmark = pytest.mark.root


def taken_over(monitor: int) -> bool:
    try:
        return Path(f"/proc/{monitor}/cmdline").read_bytes().startswith(b"proa monitor ")
    except OSError:
        return False


def test_a_launcher_that_is_killed_is_a_monitor_that_has_died(lab: Lab) -> None:
    for _ in range(50):
        connection = lab.start("sleep", "60")
        init = int(connection.started["pid"])
        state = read_state(lab.container_directory(connection))
        assert state is not None
        launcher = parent(init)
        if launcher != state.monitor.pid:
            os.kill(launcher, signal.SIGKILL)
            wait_until(lambda pid=launcher: not Path(f"/proc/{pid}").exists())
        if not taken_over(state.monitor.pid):
            break
        connection.kill(signal.SIGKILL)  # the machine is slow: it had been handed over
        wait_exit(connection)
    assert connection.next_event(5) is None
    wait_until(lambda: not Path(f"/proc/{state.monitor.pid}").exists())
    assert read_exit(lab.container_directory(connection)) is None
    os.kill(init, signal.SIGKILL)  # from here on what the engine does
    wait_until(lambda: not Path(f"/proc/{init}").exists())
    Path(state.socket).unlink()
    cgroup = cgroups.open_existing(state.cgroup)
    assert cgroup is not None
    cgroup.remove()


@pytest.mark.parametrize("how", ["exec", "input", "output"])
def test_who_wants_something_meanwhile_does_not_wait(lab: Lab, how: str) -> None:
    typing = Attach(stdin=True)
    connection, client = lab.start_attached("sh", "-c", "echo begun; cat; sleep 60", stdin=True, how=typing)
    if how == "exec":
        assert connection.exec(ExecRequest.of("e", {"args": ["true"], "env": ["PATH=/bin"], "cwd": "/"}))["pid"] > 0
    elif how == "input":
        client.sendall(b"typed\n")
        assert b"typed" in receive_until(client, b"typed")
    else:
        assert b"begun" in receive_until(client, b"begun")
    wait_until(lambda: parent(int(connection.started["pid"])) == connection.state()["monitor"]["pid"])


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


def test_an_end_while_the_log_is_replayed_to_a_client(lab: Lab) -> None:
    """What is read meanwhile would be in the log that is replayed, and come twice."""
    connection = lab.start("sh", "-c", "read x; echo $x", stdin=True)
    ours, theirs = lab.pair()
    with theirs, connection.attach_after(theirs.fileno(), Attach(stdin=True)):
        ours.sendall(b"two\n")
        wait_until(lambda: connection.state()["status"] == "exited")
        assert lab.log(connection) == []
    assert unframe(receive_all(ours)) == {1: b"two\n"}
    assert wait_exit(connection)["status"] == 0
    assert lab.log(connection) == [("stdout", "two\n")]
