"""Additional processes: streams, statuses, terminals, failures, and the end of the container under them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from monitorlab import Lab, receive_all, receive_until, unframe, wait_exit, wait_until

from proa.errors import Conflict, NotFound
from proa.monitor.borrowed import BorrowedLauncher
from proa.monitor.client import MonitorConnection
from proa.monitor.protocol import Attach, ExecRequest

pytestmark = pytest.mark.root


class Execs:
    """Starts execs in one of both ways: the monitor forks its launcher, or the nursery lends one."""

    def __init__(self, lab: Lab, *, lent: bool) -> None:
        self.lab = lab
        self.lent = lent
        self.launchers: dict[str, BorrowedLauncher] = {}
        self.events: dict[str, dict[str, Any]] = {}

    def start(
        self,
        connection: MonitorConnection,
        exec_id: str,
        process: dict[str, Any],
        *,
        stdin: bool = False,
        client_fd: int | None = None,
        how: Attach | None = None,
    ) -> dict[str, Any]:
        attach = None if client_fd is None else how or Attach(stdin=stdin)
        order = ExecRequest.of(exec_id, process, tty=process["terminal"], stdin=stdin, attach=attach)
        if not self.lent:
            return connection.exec(order, client_fd)
        launcher = self.lab.nursery.lend()
        try:
            assert launcher.order(order, connection.exec_target(), client_fd)
            started = launcher.outcome()
            assert started is not None
        except BaseException:
            launcher.close()
            raise
        self.launchers[exec_id] = launcher
        return started

    def settle(self, exec_id: str) -> None:
        """Hear what the launcher has to say: of the end, or that the monitor has the exec."""
        launcher = self.launchers.pop(exec_id, None)
        if launcher is None:
            return
        told: list[dict[str, Any]] = []
        wait_until(lambda: told.extend(launcher.pending_events()) or launcher.ended)
        launcher.close()
        (event,) = told
        if event["event"] == "exec-exit":
            self.events[exec_id] = event
        else:
            assert event == {"event": "handed-over"}

    def exit(self, connection: MonitorConnection, exec_id: str) -> dict[str, Any]:
        """The event that tells of the end."""
        self.settle(exec_id)
        while exec_id not in self.events:
            event = connection.next_event(10)
            assert event is not None
            if event["event"] == "exec-exit":
                self.events[event["exec"]] = event
        return self.events[exec_id]

    def run(
        self, connection: MonitorConnection, exec_id: str, *args: str, stdin: bytes | None = None, tty: bool = False
    ) -> tuple[bytes, int]:
        """Output and status of one that runs to its end."""
        ours, theirs = self.lab.pair()
        with theirs:
            command = process(*args, tty=tty)
            self.start(connection, exec_id, command, stdin=stdin is not None, client_fd=theirs.fileno())
        if stdin is not None:
            ours.sendall(stdin)
        ours.shutdown(socket.SHUT_WR)
        data = receive_all(ours)
        return data, self.exit(connection, exec_id)["status"]


@pytest.fixture(params=["own", "lent"])
def execs(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Execs]:
    """Everything holds for both ways."""
    execs = Execs(lab, lent=request.param == "lent")
    yield execs
    for launcher in execs.launchers.values():
        launcher.close()


@pytest.fixture
def lent(lab: Lab) -> Iterator[Execs]:
    execs = Execs(lab, lent=True)
    yield execs
    for launcher in execs.launchers.values():
        launcher.close()


def process(*args: str, tty: bool = False) -> dict[str, Any]:
    return {"args": list(args), "cwd": "/", "env": ["PATH=/bin"], "terminal": tty}


def test_output_and_status(lab: Lab, execs: Execs) -> None:
    connection = lab.start("sleep", "60")
    data, status = execs.run(connection, "one", "sh", "-c", "echo out; echo err >&2; exit 9")
    assert unframe(data) == {1: b"out\n", 2: b"err\n"}
    assert status == 9
    if not execs.lent:  # else it never knew of it
        state = connection.exec_state("one")
        assert (state["status"], state["signal"]) == (9, 0)
    assert lab.log(connection) == []


def test_status_is_final_before_the_stream_ends(lab: Lab, execs: Execs) -> None:
    connection = lab.start("sleep", "60")
    for number in range(5):
        ours, theirs = lab.pair()
        with theirs:
            execs.start(connection, f"e{number}", process("sh", "-c", f"exit {number}"), client_fd=theirs.fileno())
        receive_all(ours)
        if not execs.lent:
            assert connection.exec_state(f"e{number}")["status"] == number
        assert execs.exit(connection, f"e{number}")["status"] == number


def test_input_ends_with_the_clients(lab: Lab, execs: Execs) -> None:
    connection = lab.start("sleep", "60")
    data, status = execs.run(connection, "one", "wc", "-c", stdin=b"x" * 12345)
    assert unframe(data)[1].split() == [b"12345"]
    assert status == 0


def test_a_terminal_of_its_own(lab: Lab, execs: Execs) -> None:
    connection = lab.start("sleep", "60")
    ours, theirs = lab.pair()
    with theirs:
        execs.start(
            connection,
            "t",
            process("sh", tty=True),
            stdin=True,
            client_fd=theirs.fileno(),
            how=Attach(stdin=True),
        )
    execs.settle("t")
    connection.resize(20, 77, "t")
    ours.sendall(b"stty size\n")
    receive_until(ours, b"20 77\r\n")
    ours.sendall(b"exit 3\n")
    receive_all(ours)
    assert execs.exit(connection, "t")["status"] == 3


def test_detached_execs_drop_their_output(lab: Lab, execs: Execs) -> None:
    connection = lab.start("sleep", "60")
    started = execs.start(connection, "d", process("sh", "-c", "yes | head -c 1000000; exit 2"))
    assert started["pid"] > 0
    assert execs.exit(connection, "d")["status"] == 2


def test_signals(lab: Lab, execs: Execs) -> None:
    connection = lab.start("sleep", "60")
    execs.start(connection, "s", process("sleep", "60"))
    execs.settle("s")
    connection.kill(15, exec_id="s")
    event = execs.exit(connection, "s")
    assert (event["status"], event["signal"]) == (143, 15)
    with pytest.raises(Conflict):
        connection.kill(15, exec_id="s")


def test_failures_are_typed_and_leave_no_zombie(lab: Lab, execs: Execs) -> None:
    connection = lab.start("sleep", "60")
    ours, theirs = lab.pair()
    for number in range(3):
        with pytest.raises(NotFound) as caught:
            execs.start(connection, f"x{number}", process("no-such-command"), client_fd=theirs.fileno())
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


def test_an_id_is_used_once(lab: Lab, execs: Execs) -> None:
    connection = lab.start("sleep", "60")
    execs.start(connection, "same", process("sleep", "60"))
    execs.settle("same")
    with pytest.raises(Conflict):
        connection.exec(ExecRequest.of("same", process("true")))


def test_unknown_execs(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    with pytest.raises(NotFound, match="No such exec instance: nope"):
        connection.exec_state("nope")
    with pytest.raises(NotFound):
        connection.resize(1, 1, "nope")


def test_execs_end_with_their_container(lab: Lab, execs: Execs) -> None:
    connection = lab.start("sleep", "60")
    execs.start(connection, "long", process("sleep", "60"))
    connection.kill(9)
    assert execs.exit(connection, "long")["status"] == 137
    assert wait_exit(connection)["status"] == 137


def test_output_of_children_that_outlive_the_exec_is_waited_for_briefly(lab: Lab, execs: Execs) -> None:
    connection = lab.start("sleep", "60")
    data, status = execs.run(connection, "bg", "sh", "-c", "(sleep 0.3; echo late) & exit 1")
    assert (unframe(data), status) == ({1: b"late\n"}, 1)
    data, status = execs.run(connection, "held", "sh", "-c", "sleep 50 & echo now")
    assert (unframe(data), status) == ({1: b"now\n"}, 0)


def test_paused_containers_take_no_exec_and_die_when_killed(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    connection.pause()
    assert connection.state()["status"] == "paused"
    with pytest.raises(Conflict):
        connection.pause()
    with pytest.raises(Conflict, match="paused"):
        connection.exec(ExecRequest.of("p", process("true")))
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


def test_many_execs_leave_no_descriptor(lab: Lab, execs: Execs) -> None:
    connection = lab.start("sleep", "60")
    monitor = connection.state()["monitor"]["pid"]
    execs.run(connection, "warm", "true")
    wait_until(lambda: len(os.listdir(f"/proc/{monitor}/fd")) > 0)
    before = len(os.listdir(f"/proc/{monitor}/fd"))
    for number in range(20):
        execs.run(connection, f"n{number}", "true")
    wait_until(lambda: len(os.listdir(f"/proc/{monitor}/fd")) <= before)


def test_a_lent_launcher_that_is_gone_says_so(lab: Lab) -> None:
    target = lab.start("sleep", "60").exec_target()
    order = ExecRequest.of("e", process("true"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()  # before the order
    with closing(BorrowedLauncher(ours)) as launcher:
        assert not launcher.order(order, target, None)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(BorrowedLauncher(ours)) as launcher:
        assert launcher.order(order, target, None)
        with pytest.raises(BlockingIOError):
            launcher.outcome(wait=False)
        theirs.close()  # after it
        assert launcher.outcome() is None


def test_an_order_too_long_for_one_message(lab: Lab, lent: Execs) -> None:
    connection = lab.start("sleep", "60")
    words = ["x" * 1000] * 100
    order = ExecRequest.of("long", process("sh", "-c", "exit $#", "sh", *words))
    with closing(lab.nursery.lend()) as launcher:
        assert not launcher.order(order, connection.exec_target(), None)
    connection.exec(order)
    assert lent.exit(connection, "long")["status"] == 100


def test_a_container_that_has_ended_has_no_execs(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    target = connection.exec_target()
    connection.kill(9)
    wait_exit(connection)
    with closing(lab.nursery.lend()) as launcher:
        assert launcher.order(ExecRequest.of("late", process("true")), target, None)
        with pytest.raises(Conflict, match="not running"):
            launcher.outcome()


def test_a_launcher_watches_on_when_there_is_no_monitor_to_do_it(lab: Lab, lent: Execs) -> None:
    """The container's first process is killed while the exec, in its pid namespace, is the launcher's."""
    connection = lab.start("sleep", "60")
    ours, theirs = lab.pair()
    with theirs:
        lent.start(connection, "e", process("sh", "-c", "echo begun; sleep 60"), client_fd=theirs.fileno())
        os.unlink(connection.path)
    assert unframe(receive_until(ours, b"begun\n")) == {1: b"begun\n"}
    os.kill(connection.started["pid"], signal.SIGKILL)
    assert lent.exit(connection, "e")["status"] == 137


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def title_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""  # its child has become another's


@pytest.mark.parametrize("at_once", [True, False])  # then it is still the launcher's
def test_the_process_goes_when_nobody_can_tell_its_end(lab: Lab, lent: Execs, *, at_once: bool) -> None:
    connection = lab.start("sleep", "60")
    pid = lent.start(connection, "s", process("sleep", "60"))["pid"]
    if not at_once:
        wait_until(lambda: title_of(parent_of(pid)).startswith("proa exec"))
    os.kill(parent_of(pid), signal.SIGKILL)
    event = lent.exit(connection, "s")
    assert (event["status"], event["signal"]) == (137, 9)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    if not at_once:
        assert connection.exec_state("s")["status"] == 137
    assert connection.state()["status"] == "running"


def test_a_process_passes_to_the_spare_when_it_runs_on(lab: Lab, lent: Execs) -> None:
    """Ends of every age are told: while the launcher waits, while it gives over, and long after."""
    connection = lab.start("sleep", "60")
    for number, seconds in enumerate(("0", "0.01", "0.028", "0.03", "0.032", "0.05", "0.2")):
        lent.start(connection, f"e{number}", process("sh", "-c", f"sleep {seconds}; exit {40 + number}"))
        assert lent.exit(connection, f"e{number}")["status"] == 40 + number
