"""Execs that are listed, killed, and ended with their client; several clients on one container; top."""

from __future__ import annotations

import os
import signal
import subprocess
import termios
from pathlib import Path

import pytest
from engines import PrivateEngine, until

import proa

pytestmark = pytest.mark.root


@pytest.fixture
def running(box: PrivateEngine) -> PrivateEngine:
    box.proa("run", "-d", "--name", "ctl", "--network", "none", "busybox", "sleep", "1000")
    return box


def started(box: PrivateEngine, count: int) -> list[list[str]]:
    def rows() -> list[list[str]] | None:
        found = [line.split() for line in box.out("container", "execs", "ctl").splitlines()[1:]]
        return found if len(found) == count and all(row[2] == "running" for row in found) else None

    found: list[list[str]] = until(rows, f"{count} execs")
    return found


def test_list_and_kill(running: PrivateEngine) -> None:
    process = running.popen("exec", "ctl", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")
    [row] = started(running, 1)
    assert os.path.exists(f"/proc/{row[1]}")
    with proa.connect(running.socket) as client:
        container = client.containers.get("ctl")
        [listed] = container.execs()
        assert (listed.running, listed.exit_code, listed.pid) == (True, None, int(row[1]))
        assert listed.command.arguments[0] == "-c"
        until(lambda: Path(f"/proc/{row[1]}/status").read_text().split("SigCgt:")[1].split()[0] != "0" * 16)
        container.kill_exec(listed.id, "TERM")
        process.communicate(timeout=30)
        assert process.returncode == 3
        assert [e.exit_code for e in container.execs()] == [3]
        with pytest.raises(proa.Conflict, match="is not running"):
            container.kill_exec(listed.id)
        with pytest.raises(proa.NotFound):
            container.kill_exec("f" * 64)
    assert running.out("container", "execs", "-a", "ctl").splitlines()[1].split()[1:4] == [row[1], "exited", "(3)"]
    process = running.popen("exec", "ctl", "sleep", "500")
    [row] = started(running, 1)
    assert running.out("container", "kill-exec", row[0]) == row[0]
    process.communicate(timeout=30)
    assert process.returncode == 137


@pytest.mark.parametrize("options", [(), ("-i",)])
def test_an_exec_ends_with_its_client_when_asked(running: PrivateEngine, options: tuple[str, ...]) -> None:
    stays = running.popen("exec", *options, "ctl", "sleep", "501", stdin=subprocess.PIPE)
    goes = running.popen("exec", "--end-with-client", *options, "ctl", "sleep", "502", stdin=subprocess.PIPE)
    deaf = running.popen(
        "exec", "--end-with-client", *options, "ctl", "sh", "-c", "trap '' HUP; sleep 503", stdin=subprocess.PIPE
    )
    started(running, 3)
    until(lambda: "sleep 503" in running.out("top", "ctl"))
    for process in (stays, goes, deaf):
        process.send_signal(signal.SIGKILL)
        process.communicate()
    until(lambda: "sleep 502" not in running.out("top", "ctl"))
    [row] = started(running, 1)
    assert "501" in running.out("top", "ctl")
    running.proa("container", "kill-exec", row[0])


def test_a_session_that_ends_its_command(running: PrivateEngine) -> None:
    with proa.connect(running.socket) as client:
        container = client.containers.get("ctl")
        with container.open_exec(["cat"], tty=True, end_with_client=True) as session:
            session.write(b"x\n")
            assert session.read() is not None
        until(lambda: not [e for e in container.execs() if e.running])


def test_several_clients_and_their_keys(box: PrivateEngine) -> None:
    box.proa("run", "-dit", "--name", "many", "--network", "none", "busybox", "cat")
    one = box.terminal("attach", "many")
    two = box.terminal("attach", "--detach-keys", "ctrl-a,x", "many")
    three = box.terminal("attach", "many", program="docker")
    clients = (one, two, three)
    for client in clients:  # each once it is heard; before it is raw, a terminal echoes by itself
        until(lambda client=client: not termios.tcgetattr(client.master)[3] & termios.ICANON)
        client.send(b"here\r")
        client.expect(b"here")
    two.send(b"typed\r")
    for client in clients:
        client.expect(b"typed\r\n")
        client.expect(b"typed\r\n")
    two.send(b"\x01x")
    assert two.end() == 0
    three.send(b"\x10\x11")
    three.end()
    one.send(b"still\r")
    one.expect(b"still\r\n")
    one.expect(b"still\r\n")
    one.send(b"\x04")
    assert one.end() == 0


@pytest.mark.parametrize(
    "arguments", [(), ("-ef",), ("aux",), ("-o", "pid,comm,args"), ("-eo", "user,pid=NUMBER,ppid,ni,nlwp")]
)
def test_top_shows_what_ps_shows(running: PrivateEngine, arguments: tuple[str, ...]) -> None:
    """Of the processes that last, and of columns that do not change from one moment to the next."""
    init = str(running.inspect("ctl")["State"]["Pid"])
    ours = running.out("top", "ctl", *arguments).splitlines()
    assert len(ours) == 2
    theirs = subprocess.run(["ps", *(arguments or ("-ef",))], capture_output=True, text=True, check=True).stdout
    titles, *rows = theirs.splitlines()
    assert ours[0].split() == titles.split()
    at = titles.split().index("NUMBER" if "NUMBER" in titles else "PID")
    if "-o" in arguments:
        expected = [init, "sleep", "sleep", "1000"]  # without -e, ps shows its own terminal's only
    else:
        [expected] = [row.split() for row in rows if row.split()[at] == init]
    volatile = {"C", "%CPU", "RSS", "TIME", "%MEM"}
    for title, mine, other in zip(titles.split(), ours[1].split(), expected, strict=False):
        assert title in volatile or mine == other, title
    assert running.docker("top", "ctl", *arguments).stdout.decode().splitlines()[0].split() == titles.split()


def test_top_shows_only_the_container_s_processes(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "hostpid", "--network", "none", "--pid", "host", "busybox", "sleep", "777")
    assert [line.split()[-1] for line in box.out("top", "hostpid").splitlines()[1:]] == ["777"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("-o", "comm"), "Couldn't find PID field in ps output"),
        (("-o", "pid,nope"), "unknown column 'nope'"),
        (("--no-headers",), "needs the titles"),
        (("-Z",), "'-Z' is not supported"),
        (("--sort=-rss",), "is not supported"),
    ],
)
def test_options_that_top_does_not_know(running: PrivateEngine, arguments: tuple[str, ...], text: str) -> None:
    refused = running.proa("top", "ctl", *arguments, check=False)
    assert refused.returncode == 1
    assert text in refused.stderr.decode()
