"""Additional processes: streams, statuses, terminals, failures, and the end of the container under them."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from monitorlab import Lab, receive_all, receive_until, unframe, wait_exit, wait_until

from proa.errors import Conflict, NotFound
from proa.monitor.client import MonitorConnection
from proa.monitor.protocol import Attach

pytestmark = pytest.mark.root


@pytest.fixture(params=["own", "lent"], autouse=True)
def launcher(request: pytest.FixtureRequest, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything holds whether the monitor forks its launcher or borrows one."""
    plain = MonitorConnection.exec

    def lent(connection: MonitorConnection, *args: Any, **more: Any) -> dict[str, Any]:
        with lab.nursery.lend() as launcher:
            return plain(connection, *args, **{"launcher_fd": launcher.fileno(), **more})

    if request.param == "lent":
        monkeypatch.setattr(MonitorConnection, "exec", lent)
    return str(request.param)


def process(*args: str, tty: bool = False) -> dict[str, Any]:
    return {"args": list(args), "cwd": "/", "env": ["PATH=/bin"], "terminal": tty}


def run(
    lab: Lab, connection: MonitorConnection, exec_id: str, *args: str, stdin: bytes | None = None, tty: bool = False
) -> tuple[bytes, int]:
    ours, theirs = lab.pair()
    with theirs:
        connection.exec(exec_id, process(*args, tty=tty), tty=tty, stdin=stdin is not None, client_fd=theirs.fileno())
    if stdin is not None:
        ours.sendall(stdin)
    ours.shutdown(socket.SHUT_WR)
    data = receive_all(ours)
    event = exec_exit(connection, exec_id)
    return data, event["status"]


def exec_exit(connection: MonitorConnection, exec_id: str) -> dict[str, Any]:
    while True:
        event = connection.next_event(10)
        assert event is not None
        if event["event"] == "exec-exit" and event["exec"] == exec_id:
            return event


def test_output_and_status(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    data, status = run(lab, connection, "one", "sh", "-c", "echo out; echo err >&2; exit 9")
    assert unframe(data) == {1: b"out\n", 2: b"err\n"}
    assert status == 9
    state = connection.exec_state("one")
    assert (state["status"], state["signal"]) == (9, 0)
    assert lab.log(connection) == []


def test_status_is_final_before_the_stream_ends(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    for number in range(5):
        ours, theirs = lab.pair()
        with theirs:
            connection.exec(f"e{number}", process("sh", "-c", f"exit {number}"), client_fd=theirs.fileno())
        receive_all(ours)
        assert connection.exec_state(f"e{number}")["status"] == number


def test_input_ends_with_the_clients(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    data, status = run(lab, connection, "one", "wc", "-c", stdin=b"x" * 12345)
    assert unframe(data)[1].split() == [b"12345"]
    assert status == 0


def test_a_terminal_of_its_own(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    ours, theirs = lab.pair()
    with theirs:
        connection.exec(
            "t",
            process("sh", tty=True),
            tty=True,
            stdin=True,
            client_fd=theirs.fileno(),
            how=Attach(stdin=True),
        )
    connection.resize(20, 77, "t")
    ours.sendall(b"stty size\n")
    receive_until(ours, b"20 77\r\n")
    ours.sendall(b"exit 3\n")
    receive_all(ours)
    assert exec_exit(connection, "t")["status"] == 3


def test_detached_execs_drop_their_output(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    started = connection.exec("d", process("sh", "-c", "yes | head -c 1000000; exit 2"))
    assert started["pid"] > 0
    assert exec_exit(connection, "d")["status"] == 2


def test_signals(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    connection.exec("s", process("sleep", "60"))
    connection.kill(15, exec_id="s")
    event = exec_exit(connection, "s")
    assert (event["status"], event["signal"]) == (143, 15)
    with pytest.raises(Conflict):
        connection.kill(15, exec_id="s")


def test_failures_are_typed_and_leave_no_zombie(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    ours, theirs = lab.pair()
    for number in range(3):
        with pytest.raises(NotFound) as caught:
            connection.exec(f"x{number}", process("no-such-command"), client_fd=theirs.fileno())
        assert caught.value.code == "command-not-found"
    theirs.sendall(b"the engine can still tell the client")  # its socket was not shut down
    assert ours.recv(100).startswith(b"the engine")
    ours.close()
    theirs.close()
    with pytest.raises(NotFound):
        connection.exec_state("x0")
    monitor = connection.state()["monitor"]["pid"]
    children = Path(f"/proc/{monitor}/task/{monitor}/children")
    wait_until(lambda: children.read_text().split() == [str(connection.started["pid"])])


def test_an_id_is_used_once(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    connection.exec("same", process("true"))
    with pytest.raises(Conflict):
        connection.exec("same", process("true"))


def test_unknown_execs(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    with pytest.raises(NotFound, match="No such exec instance: nope"):
        connection.exec_state("nope")
    with pytest.raises(NotFound):
        connection.resize(1, 1, "nope")


def test_execs_end_with_their_container(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    connection.exec("long", process("sleep", "60"))
    connection.kill(9)
    assert exec_exit(connection, "long")["status"] == 137
    assert wait_exit(connection)["status"] == 137


def test_output_of_children_that_outlive_the_exec_is_waited_for_briefly(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    data, status = run(lab, connection, "bg", "sh", "-c", "(sleep 0.3; echo late) & exit 1")
    assert (unframe(data), status) == ({1: b"late\n"}, 1)
    data, status = run(lab, connection, "held", "sh", "-c", "sleep 50 & echo now")
    assert (unframe(data), status) == ({1: b"now\n"}, 0)


def test_paused_containers_take_no_exec_and_die_when_killed(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    connection.pause()
    assert connection.state()["status"] == "paused"
    with pytest.raises(Conflict):
        connection.pause()
    with pytest.raises(Conflict, match="paused"):
        connection.exec("p", process("true"))
    connection.resume()
    assert connection.state()["status"] == "running"
    with pytest.raises(Conflict):
        connection.resume()
    connection.pause()
    connection.kill(9)
    assert wait_exit(connection)["status"] == 137


def test_signal_to_all_processes(lab: Lab) -> None:
    connection = lab.start("sh", "-c", "trap 'echo term' TERM; sleep 60 & wait; wait")
    # A child that is not yet `sleep` is still the shell, whose trap would take the signal.
    wait_until(lambda: [name_of(child) for child in children_of(connection.started["pid"])] == ["sleep"])
    connection.kill(15, all_processes=True)
    wait_exit(connection)  # the sleep died, too: the shell waited for it
    assert ("stdout", "term\n") in lab.log(connection)


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def name_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


def test_many_execs_leave_no_descriptor(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    monitor = connection.state()["monitor"]["pid"]
    run(lab, connection, "warm", "true")
    wait_until(lambda: len(os.listdir(f"/proc/{monitor}/fd")) > 0)
    before = len(os.listdir(f"/proc/{monitor}/fd"))
    for number in range(20):
        run(lab, connection, f"n{number}", "true")
    wait_until(lambda: len(os.listdir(f"/proc/{monitor}/fd")) <= before)


def test_a_lent_launcher_that_is_gone_is_done_without(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()  # before the order
    with ours:
        connection.exec("before", process("sh", "-c", "exit 3"), launcher_fd=ours.fileno())
    assert exec_exit(connection, "before")["status"] == 3
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    thief = threading.Thread(target=lambda: (theirs.recv(1 << 16), theirs.close()))  # after it
    thief.start()
    with ours:
        connection.exec("after", process("sh", "-c", "exit 4"), launcher_fd=ours.fileno())
    thief.join()
    assert exec_exit(connection, "after")["status"] == 4


def test_an_order_too_long_for_one_message(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    words = ["x" * 1000] * 100
    connection.exec("long", process("sh", "-c", "exit $#", "sh", *words))
    assert exec_exit(connection, "long")["status"] == 100


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def title_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""  # its child has become another's


@pytest.mark.parametrize("at_once", [True, False])  # then it is still the launcher's
def test_the_process_goes_when_nobody_can_tell_its_end(lab: Lab, launcher: str, *, at_once: bool) -> None:
    if launcher == "own":
        return
    connection = lab.start("sleep", "60")
    pid = connection.exec("s", process("sleep", "60"))["pid"]
    if not at_once:
        wait_until(lambda: title_of(parent_of(pid)).startswith("proa exec"))
    os.kill(parent_of(pid), signal.SIGKILL)
    event = exec_exit(connection, "s")
    assert (event["status"], event["signal"]) == (137, 9)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert connection.exec_state("s")["status"] == 137
    assert connection.state()["status"] == "running"


def test_a_process_passes_to_the_spare_when_it_runs_on(lab: Lab, launcher: str) -> None:
    """Ends of every age are told: while the launcher waits, while it gives over, and long after."""
    if launcher == "own":
        return
    connection = lab.start("sleep", "60")
    for number, seconds in enumerate(("0", "0.01", "0.028", "0.03", "0.032", "0.05", "0.2")):
        connection.exec(f"e{number}", process("sh", "-c", f"sleep {seconds}; exit {40 + number}"))
        assert exec_exit(connection, f"e{number}")["status"] == 40 + number
