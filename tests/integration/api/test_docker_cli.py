"""The real docker CLI against the engine: what people type, and the exit status they get."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.root


@pytest.fixture
def box(shared: Any) -> Iterator[str]:
    """A running container."""
    name = f"box{time.monotonic_ns()}"
    shared.docker("run", "-d", "--name", name, "--network", "none", "busybox", "sleep", "1000")
    yield name
    shared.docker("rm", "-f", name)


def run(engine: Any, *args: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return engine.docker("run", "--rm", "--network", "none", *args, check=False, **options)  # type: ignore[no-any-return]


def test_run_keeps_the_streams_and_the_status_apart(shared: Any) -> None:
    done = run(shared, "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)


@pytest.mark.parametrize(("command", "status"), [("nosuch", 127), ("/etc", 126), ("/nosuch/program", 127)])
def test_run_of_a_command_that_is_not_there(shared: Any, command: str, status: int) -> None:
    done = run(shared, "busybox", command)
    assert done.returncode == status, done.stderr
    assert shared.out("ps", "-aq", "--filter", "status=created") == ""


def test_run_of_an_image_that_is_not_there(shared: Any) -> None:
    done = run(shared, "--pull", "never", "nosuch")
    assert (done.returncode, b"No such image: nosuch:latest" in done.stderr) == (125, True)


def test_stdin_arrives_whole(shared: Any) -> None:
    data = os.urandom(4 << 20)
    done = run(shared, "-i", "busybox", "sha256sum", input=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert run(shared, "-i", "busybox", "cat", input=data[: 1 << 20]).stdout == data[: 1 << 20]
    assert run(shared, "-i", "busybox", "cat", input=b"").stdout == b""


def test_output_arrives_whole(shared: Any) -> None:
    done = run(shared, "busybox", "sh", "-c", "dd if=/dev/zero bs=1M count=8 2>/dev/null; echo end >&2")
    assert (len(done.stdout), done.stderr) == (8 << 20, b"end\n")


def test_a_terminal(shared: Any, terminal: Callable[..., Any]) -> None:
    tty = terminal(shared, "run", "-it", "--rm", "--network", "none", "busybox", "sh", size=(33, 101))
    tty.send(b"stty size; tty\n")
    tty.expect(b"33 101")
    tty.expect(b"/dev/pts/0")
    # The docker command listens for size changes some time after the program runs: change it until it was heard.
    tty.send(b"until stty size | grep -q '40 120'; do sleep 0.1; done; echo heard-$?\n")
    for attempt in range(75):
        tty.resize((41 if attempt % 2 else 40, 120))
        try:
            tty.expect(b"heard-0", seconds=0.4)
            break
        except AssertionError:
            continue
    tty.expect(b"heard-0", seconds=1)
    tty.send(b"cat /proc/self/comm -\n")
    tty.expect(b"\ncat\r\n")  # cat itself runs
    tty.seen = b""
    tty.send(b"\x03")  # Ctrl-C reaches the program, not the client
    tty.expect(b"/ # ")  # what is typed before the prompt is thrown away
    tty.send(b"echo after-$?\n")
    tty.expect(b"after-130")
    tty.send(b"exit 4\n")
    assert tty.end() == 4


def test_detach_keys_leave_the_container_running(shared: Any, terminal: Callable[..., Any]) -> None:
    tty = terminal(shared, "run", "-it", "--name", "detached", "--network", "none", "busybox", "sh")
    tty.expect(b"/ # ")  # the shell's prompt: the client has made its terminal raw by now
    tty.send(b"echo on''e\n")
    tty.expect(b"one\r\n")
    tty.send(b"\x10\x11")
    assert tty.end() == 0
    assert shared.out("inspect", "-f", "{{.State.Status}}", "detached") == "running"
    again = terminal(shared, "attach", "detached")
    time.sleep(0.3)
    again.send(b"echo tw''o; exit 3\n")
    again.expect(b"two\r\n")
    assert again.end() == 3
    shared.docker("rm", "detached")


def test_exec(shared: Any, box: str, terminal: Callable[..., Any]) -> None:
    done = shared.docker("exec", box, "sh", "-c", "echo out; echo err >&2; exit 5", check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 5)
    assert shared.docker("exec", "-i", box, "cat", input=b"x" * 100_000).stdout == b"x" * 100_000
    assert shared.docker("exec", "-e", "A=b", "-w", "/tmp", box, "sh", "-c", "echo $A; pwd").stdout == b"b\n/tmp\n"
    assert shared.docker("exec", box, "nosuch", check=False).returncode == 127
    assert shared.docker("exec", "-d", box, "true").returncode == 0
    tty = terminal(shared, "exec", "-it", box, "sh", size=(30, 90))
    time.sleep(0.3)
    tty.send(b"stty size; exit 6\n")
    tty.expect(b"30 90")
    assert tty.end() == 6


def test_exec_inspect_is_final_when_the_stream_ends(shared: Any, box: str) -> None:
    for status in range(1, 12):
        assert shared.docker("exec", box, "sh", "-c", f"exit {status}", check=False).returncode == status


def test_logs(shared: Any) -> None:
    script = "for i in 1 2 3; do echo line $i; echo err $i >&2; sleep 0.1; done; sleep 0.5; echo end"
    shared.docker("run", "-d", "--name", "logged", "--network", "none", "busybox", "sh", "-c", script)
    followed = shared.docker("logs", "-f", "logged")  # ends when the container does
    assert followed.stdout == b"line 1\nline 2\nline 3\nend\n"
    assert followed.stderr == b"err 1\nerr 2\nerr 3\n"
    assert shared.out("logs", "--tail", "1", "logged") == "end"
    assert shared.out("logs", "--tail", "0", "logged") == ""
    stamped = shared.out("logs", "-t", "--tail", "1", "logged").split(" ")
    assert stamped[0].endswith("Z")
    assert stamped[1:] == ["end"]
    assert shared.out("logs", "--since", "1h", "logged").count("line") == 3
    assert shared.out("logs", "--until", "2020-01-01T00:00:00", "logged") == ""
    shared.docker("rm", "logged")
    done = shared.docker("logs", "logged", check=False)
    assert b"No such container: logged" in done.stderr


def test_detached_then_wait_and_remove(shared: Any) -> None:
    name = shared.out("run", "-d", "--network", "none", "busybox", "sh", "-c", "sleep 0.2; exit 9")
    assert shared.out("wait", name) == "9"
    assert shared.out("inspect", "-f", "{{.State.ExitCode}} {{.State.Running}}", name) == "9 false"
    shared.docker("rm", name)


def test_ps(shared: Any, box: str) -> None:
    shared.docker("create", "--name", "made", "-l", "a=b", "busybox", "true")
    assert shared.out("ps", "--format", "{{.Names}}").split() == [box]
    assert set(shared.out("ps", "-a", "--format", "{{.Names}} {{.Status}}").splitlines()) >= {"made Created"}
    assert shared.out("ps", "-aq", "--filter", "label=a=b", "--no-trunc") == shared.out(
        "inspect", "-f", "{{.Id}}", "made"
    )
    assert shared.out("ps", "-a", "--filter", "name=made", "--format", "{{.Command}}") == '"true"'
    assert shared.docker("ps", "--filter", "nope=x", check=False).returncode != 0
    assert "ago" in shared.out("ps", "-a", "--filter", "name=made", "--format", "{{.RunningFor}}")
    shared.docker("ps", "-as")
    shared.docker("rm", "made")


def test_life(shared: Any, box: str) -> None:
    shared.docker("pause", box)
    assert "(Paused)" in shared.out("ps", "--filter", f"name={box}", "--format", "{{.Status}}")
    assert b"is paused" in shared.docker("exec", box, "true", check=False).stderr
    shared.docker("unpause", box)
    shared.docker("rename", box, box + "x")
    shared.docker("rename", box + "x", box)
    shared.docker("restart", "-t", "0", box)
    assert b"cannot remove a running container" in shared.docker("rm", box, check=False).stderr.lower()
    shared.docker("stop", "-t", "0", box)
    shared.docker("stop", box)  # 304: no complaint
    assert shared.docker("kill", box, check=False).returncode == 1
    shared.docker("start", box)
    shared.docker("start", box)
    assert shared.out("kill", "-s", "KILL", box) == box
    assert shared.out("wait", box) == "137"


def test_top_and_stats(shared: Any, box: str) -> None:
    assert "sleep 1000" in shared.out("top", box)
    line = json.loads(shared.out("stats", "--no-stream", "--format", "json", box))
    assert (line["Name"], line["PIDs"]) == (box, "1")
    assert line["MemUsage"].split()[0] != "0B"


def test_attach_before_start(shared: Any) -> None:
    shared.docker("create", "-i", "--name", "later", "--network", "none", "busybox", "cat")
    done = shared.docker("start", "-ai", "later", input=b"through\n")
    assert done.stdout == b"through\n"
    shared.docker("rm", "later")


def test_images(shared: Any, box: str) -> None:
    shared.docker("exec", box, "sh", "-c", "echo change > /changed")
    assert "A /changed" in shared.out("diff", box).splitlines()
    image = shared.out("commit", "-m", "why", "-a", "who", "-c", "CMD cat /changed", box, "new:1")
    assert image.startswith("sha256:")
    assert run(shared, "new:1").stdout == b"change\n"
    assert "why" in shared.out("history", "new:1")
    shared.docker("tag", "new:1", "127.0.0.1:5999/team/new:2")
    assert {"new:1", "127.0.0.1:5999/team/new:2"} <= set(
        shared.out("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    )
    assert set(shared.out("images", "-q", "--no-trunc", "--filter", "reference=new").split()) == {image}
    shown = json.loads(shared.out("inspect", "new:1"))[0]
    assert (shown["Id"], shown["Author"], shown["Comment"]) == (image, "who", "why")
    assert len(shown["RootFS"]["Layers"]) == 2
    archive = shared.docker("save", "new:1", "busybox").stdout
    said = shared.out("rmi", "127.0.0.1:5999/team/new:2", "new:1")
    assert f"Deleted: {image}" in said
    assert b"No such image: new:1" in shared.docker("inspect", "--type", "image", "new:1", check=False).stderr
    loaded = shared.docker("load", input=archive).stdout.decode()
    assert "Loaded image: new:1" in loaded
    assert shared.out("inspect", "-f", "{{.Id}}", "new:1") == image
    assert run(shared, "new:1").stdout == b"change\n"
    assert shared.docker("rmi", "busybox", check=False).returncode == 1  # in use by the running container
    shared.docker("rmi", "new:1")
    assert shared.docker("load", input=b"no archive" * 1000, check=False).returncode == 1


def test_networks_and_volumes(shared: Any) -> None:
    assert set(shared.out("network", "ls", "--format", "{{.Name}}").split()) == {"bridge", "host", "none"}
    assert json.loads(shared.out("network", "inspect", "none"))[0]["Driver"] == "null"
    assert b"network nope not found" in shared.docker("network", "inspect", "nope", check=False).stderr
    shared.docker("volume", "create", "--label", "a=b", "vol")
    assert shared.out("volume", "ls", "-q", "--filter", "label=a=b") == "vol"
    assert run(shared, "-v", "vol:/v", "busybox", "sh", "-c", "echo kept > /v/f").returncode == 0
    assert run(shared, "-v", "vol:/v", "busybox", "cat", "/v/f").stdout == b"kept\n"
    shared.docker("volume", "rm", "vol")
    assert b"no such volume" in shared.docker("volume", "inspect", "vol", check=False).stderr


def test_events(shared: Any) -> None:
    seen: list[str] = []
    stream = subprocess.Popen(
        ["docker", "events", "--filter", "type=container", "--format", "{{.Action}}"],
        stdout=subprocess.PIPE,
        env=shared.env,
        text=True,
    )
    assert stream.stdout is not None
    lines = stream.stdout

    def read() -> None:
        seen.extend(iter(lines.readline, ""))

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.5)
    run(shared, "busybox", "true")
    deadline = time.monotonic() + 10
    while "destroy\n" not in seen:
        assert time.monotonic() < deadline, seen
        time.sleep(0.02)
    stream.terminate()
    reader.join()
    stream.wait()
    lines.close()
    assert [line for line in seen if line.strip() in ("create", "start", "die", "destroy")] == [
        "create\n",
        "start\n",
        "die\n",
        "destroy\n",
    ]
    past = shared.out("events", "--since", "10m", "--until", "0s", "--format", "{{.Action}}")
    assert "destroy" in past


def test_the_rest_answers(shared: Any) -> None:
    assert "Server: proa" in shared.out("version")
    assert "Storage Driver: overlay" in shared.out("info")
    shared.docker("system", "df", "-v")
    assert b"not supported" in shared.docker("build", "-", input=b"FROM busybox\n", check=False).stderr
    shared.docker("create", "--name", "dead", "busybox")
    assert "Total reclaimed space" in shared.out("container", "prune", "-f")
    shared.docker("volume", "prune", "-f")
    shared.docker("image", "prune", "-f")


def test_many_at_once(shared: Any) -> None:
    def one(results: list[int]) -> None:
        results.append(run(shared, "busybox", "true").returncode)

    results: list[int] = []
    threads = [threading.Thread(target=one, args=(results,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0] * 20
    assert shared.out("ps", "-aq") == ""
