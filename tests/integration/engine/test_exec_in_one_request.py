"""`POST /proa/v1/containers/{id}/exec`: created, started and told its end on one connection."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from engines import PrivateEngine, until

import proa

pytestmark = pytest.mark.root


def spares(box: PrivateEngine) -> list[int]:
    """Monitors that wait for a container or an exec, and their launchers."""
    waiting = set(children(box.nursery_pid())) - {box.monitor_pid("one")}
    return sorted(pid for spare in waiting for pid in (spare, *children(spare)))


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def hold_launcher(box: PrivateEngine) -> None:
    """Have the engine keep a launcher in hand, as it does after an exec."""
    box.proa("exec", "one", "true")

    def settled() -> bool:
        before = spares(box)
        time.sleep(0.1)  # by then the launcher of this exec has ended
        return len(before) == 4 and before == spares(box)

    until(settled, "a spare for the next exec and one for what else comes")


@pytest.fixture(params=["first", "later"])
def running(box: PrivateEngine, request: pytest.FixtureRequest) -> PrivateEngine:
    """With a container; the engine has to ask for a launcher, or has one in hand."""
    box.proa("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000")
    if request.param == "later":
        hold_launcher(box)
    return box


def ask(box: PrivateEngine, document: dict[str, Any], then: bytes = b"", container: str = "one") -> socket.socket:
    """Send the request, and what belongs to the process right behind it."""
    body = json.dumps(document).encode()
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(str(box.run_dir / "engine.sock"))
    head = f"POST /proa/v1/containers/{container}/exec HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    sock.sendall((head + "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n").encode() + body + then)
    return sock


def answer(sock: socket.socket) -> tuple[str, list[tuple[int, bytes]]]:
    """The head, and the frames until the end."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    sock.close()
    head, _, rest = data.partition(b"\r\n\r\n")
    frames = []
    while rest:
        assert rest[1:4] == b"\0\0\0"
        length = int.from_bytes(rest[4:8], "big")
        frames.append((rest[0], rest[8 : 8 + length]))
        rest = rest[8 + length :]
    return head.decode(), frames


SHOWN = {"AttachStdout": True, "AttachStderr": True}


def test_the_last_frame_is_the_status(running: PrivateEngine) -> None:
    script = "echo out; echo err >&2; exit 7"
    head, frames = answer(ask(running, {"Cmd": ["sh", "-c", script], **SHOWN}))
    assert head.startswith("HTTP/1.1 101 ")
    assert "multiplexed-stream" in head
    assert sorted(frames[:-1]) == [(1, b"out\n"), (2, b"err\n")]
    assert frames[-1] == (4, b"7")
    identity = next(line.split(": ")[1] for line in head.splitlines() if line.startswith("Exec-Id: "))
    *_, listed = running.out("container", "execs", "-a", "--no-trunc", "one").splitlines()[1:]
    assert listed.split()[0] == identity
    assert "exited (7)" in listed


def test_input_right_behind_the_request(running: PrivateEngine) -> None:
    sock = ask(running, {"Cmd": ["cat"], "AttachStdin": True, **SHOWN}, b"early ")
    sock.sendall(b"late")
    sock.shutdown(socket.SHUT_WR)
    _, frames = answer(sock)
    assert b"".join(data for stream, data in frames if stream == 1) == b"early late"
    assert frames[-1] == (4, b"0")


def test_what_ended_by_a_signal_and_what_nobody_reads(running: PrivateEngine) -> None:
    _, frames = answer(ask(running, {"Cmd": ["sh", "-c", "echo unread; kill -TERM $$"]}))
    assert frames == [(4, b"143")]


def test_what_cannot_be_run_says_so(running: PrivateEngine) -> None:
    _, frames = answer(ask(running, {"Cmd": ["nosuch"], **SHOWN}))
    assert [stream for stream, _ in frames] == [1]
    assert b'"nosuch": executable file not found' in frames[0][1]
    done = running.proa("exec", "one", "nosuch", check=False)
    assert done.returncode == 127


@pytest.mark.parametrize(
    ("document", "container", "status"),
    [
        ({"Cmd": ["true"], "Tty": True}, "one", "400"),
        ({"Cmd": []}, "one", "400"),
        ({"Cmd": ["true"]}, "nobody", "404"),
    ],
)
def test_what_is_refused_before_anything_runs(
    running: PrivateEngine, document: dict[str, Any], container: str, status: str
) -> None:
    before = running.out("container", "execs", "-a", "one")
    sock = ask(running, document, container=container)
    assert sock.recv(65536).split()[1] == status.encode()
    sock.close()
    assert running.out("container", "execs", "-a", "one") == before


def test_without_a_monitor_nobody_tells_and_the_engine_is_asked(running: PrivateEngine) -> None:
    process = running.popen("exec", "one", "sh", "-c", "echo begun; sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    os.kill(running.monitor_pid("one"), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == 137


def test_many_at_once_while_their_container_is_killed(running: PrivateEngine) -> None:
    """Each has a result, whatever moment of its start that was."""
    for _ in range(4):
        running.proa("run", "-d", "--name", "doomed", "--network", "none", "busybox", "sleep", "1000")
        processes = [running.popen("exec", "doomed", "true") for _ in range(6)]
        running.proa("kill", "doomed")
        for process in processes:
            process.communicate(timeout=60)
            assert process.returncode in (0, 1, 128, 137)
        running.proa("rm", "-f", "doomed")


def test_launchers_that_were_killed_are_done_without(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000")
    for number in range(3):
        hold_launcher(box)
        for pid in spares(box):
            with suppress(ProcessLookupError):  # it ended with its monitor
                os.kill(pid, signal.SIGKILL)
        _, frames = answer(ask(box, {"Cmd": ["sh", "-c", f"echo {number}; exit {number}"], **SHOWN}))
        assert frames == [(1, b"%d\n" % number), (4, b"%d" % number)]


def test_a_stopped_launcher_is_waited_for(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000")
    hold_launcher(box)
    stopped = spares(box)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    process = box.popen("exec", "one", "sh", "-c", "exit 5")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)  # after the last look at it
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    process.communicate(timeout=30)
    assert process.returncode == 5


def test_whoever_asks_at_once_hears_what_is_true(box: PrivateEngine) -> None:
    """While a launcher has it, while it hands it over, and when the monitor has it."""
    box.proa("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000")
    with proa.connect(box.socket) as client:
        container = client.containers.get("one")
        for pause in ("0", "0.01", "0.028", "0.03", "0.032", "0.2"):
            hold_launcher(box)
            process = box.popen("exec", "one", "sh", "-c", f"sleep {pause}; exit 9")
            known: dict[str, tuple[bool, int | None]] = {}
            while process.poll() is None:
                known |= {e.id: (e.running, e.exit_code) for e in container.execs()}
            known |= {e.id: (e.running, e.exit_code) for e in container.execs()}
            assert process.returncode == 9
            assert set(known.values()) <= {(False, 0), (False, 9)}
            process.communicate()


def test_events_come_in_order(running: PrivateEngine) -> None:
    watching = running.popen("events", "--filter", "container=one", "--format", "{{.Action}}", bufsize=0)
    assert watching.stdout is not None
    until(lambda: running.out("exec", "one", "echo", "x") == "x" and select.select([watching.stdout], [], [], 0)[0])
    running.proa("exec", "one", "false", check=False)
    running.proa("kill", "one")
    heard = []
    while (line := watching.stdout.readline().decode().strip()) != "die":
        heard.append(line.partition(":")[0])
    watching.terminate()
    watching.communicate()
    assert heard[-4:] == ["exec_create", "exec_start", "exec_die", "kill"]


def test_a_container_that_was_paused_meanwhile(running: PrivateEngine) -> None:
    with proa.connect(running.socket) as client:
        container = client.containers.get("one")
        container.pause()
        with pytest.raises(proa.Conflict, match="paused"):
            container.exec(["true"])
        container.unpause()
        assert container.exec(["true"]).exit_code == 0


def test_an_older_engine_is_asked_in_its_own_way(running: PrivateEngine, tmp_path: Path) -> None:
    """Between command and engine stands one who does not know the path, as an engine of an earlier version."""
    asked = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "old.sock"))
    listener.listen(8)

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)

    def both_ways(client: socket.socket, engine: socket.socket) -> None:
        with client, engine:
            asking = threading.Thread(target=pass_on, args=(client, engine), daemon=True)
            asking.start()
            pass_on(engine, client)
            asking.join()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            line = client.recv(65536, socket.MSG_PEEK).split(b"\r\n")[0]
            asked.append(line.split()[1].decode())
            if b"/proa/v1/containers/one/exec" in line:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 28\r\nConnection: close\r\n\r\n")
                client.sendall(b'{"message":"page not found"}')
                client.close()
                continue
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(str(running.run_dir / "engine.sock"))
            threading.Thread(target=both_ways, args=(client, engine), daemon=True).start()

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    done = running.proa(
        "-H", f"unix://{tmp_path}/old.sock", "exec", "one", "sh", "-c", "echo fine; exit 4", check=False
    )
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    until(lambda: not server.is_alive())
    assert (done.stdout, done.returncode) == (b"fine\n", 4)
    assert asked[0] == "/proa/v1/containers/one/exec"
    assert any(path.endswith("/containers/one/exec") and "proa" not in path for path in asked)
