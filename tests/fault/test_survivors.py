"""What goes on when a process of the design is killed: output without end, terminals, followed logs, the next start."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import leaks
import pytest
from engines import PrivateEngine, kill_and_wait, until
from oci_images import Image, tar

pytestmark = pytest.mark.root

QUIET = ("--network", "none")
# Says a line for each line it reads: the test decides when the container goes on.
ECHO = 'n=0; while read x; do n=$((n+1)); echo "$x $n"; done; echo end; exit 7'


class Talk:
    """An attached `proa run` that answers line by line."""

    def __init__(self, engine: PrivateEngine, name: str, *options: str) -> None:
        self.process = engine.popen(
            "run", "-i", "--name", name, *options, *QUIET, "busybox", "sh", "-c", ECHO, stdin=-1
        )

    def say(self, text: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().decode().strip()

    def finish(self) -> tuple[bytes, bytes, int]:
        out, err = self.process.communicate(timeout=30)
        return out, err, self.process.returncode


@pytest.fixture
def talk(busybox: PrivateEngine) -> Iterator[Callable[..., Talk]]:
    started: list[Talk] = []

    def start(name: str, *options: str) -> Talk:
        started.append(Talk(busybox, name, *options))
        assert started[-1].say("hello") == "hello 1"
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        with contextlib.suppress(BrokenPipeError, ValueError):
            one.process.communicate()


def test_a_container_that_prints_without_end(busybox: PrivateEngine) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; echo done"
    with busybox.popen("run", "--name", "prints", *QUIET, "busybox", "sh", "-c", script, stderr=None) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"1\n"
        busybox.kill_engine()
        assert run.stdout.read().split() == [str(n).encode() for n in range(2, 20001)] + [b"done"]
        assert run.wait(60) == 0
    assert busybox.out("logs", "prints").split() == [str(n) for n in range(1, 20001)] + ["done"]


def test_a_terminal_survives_the_engine(busybox: PrivateEngine) -> None:
    terminal = busybox.terminal("run", "-it", "--name", "tty", *QUIET, "busybox", "sh")
    terminal.expect(b"#")
    busybox.kill_engine()
    terminal.send(b"echo still $((6*7))\n")
    terminal.expect(b"still 42")
    assert busybox.inspect("tty")["State"]["Running"] is True
    terminal.send(b"exit 3\n")
    assert terminal.end() == 3


def test_following_logs_at_the_next_engine(busybox: PrivateEngine, talk: Callable[..., Talk]) -> None:
    client = talk("logged")
    busybox.kill_engine()
    follower = busybox.popen("logs", "-f", "logged")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"hello 1\n"
    client.say("more")
    assert follower.stdout.readline() == b"more 2\n"
    client.finish()
    assert follower.communicate(timeout=20)[0] == b"end\n"


def test_the_nursery_dies(busybox: PrivateEngine, talk: Callable[..., Talk]) -> None:
    client = talk("older")
    kill_and_wait(busybox.nursery_pid())
    assert client.say("alive") == "alive 2"
    # The engine makes another, and knows both containers.
    assert busybox.sh("echo started") == "started"
    busybox.proa("run", "-d", "--name", "younger", *QUIET, "busybox", "sleep", "1000")
    assert sorted(busybox.containers()) == ["older", "younger"]
    assert busybox.out("exec", "older", "echo", "in") == "in"
    assert client.finish() == (b"end\n", b"", 7)
    assert busybox.out("wait", "older") == "7"


def test_monitor_and_engine_of_many(busybox: PrivateEngine) -> None:
    for n in range(6):
        busybox.proa("run", "-d", "--name", f"c{n}", *QUIET, "busybox", "sleep", "1000")
    monitors = [busybox.monitor_pid(f"c{n}") for n in range(6)]
    for monitor in monitors[:3]:
        kill_and_wait(monitor)
    busybox.kill_engine()
    until(lambda: len(busybox.out("ps", "-q").split()) == 3, "three to be left")
    assert sorted(busybox.out("ps", "--format", "{{.Names}}").split()) == ["c3", "c4", "c5"]
    assert busybox.out("wait", "c0", "c1", "c2") == "137\n137\n137"


def test_the_unpack_worker_dies(busybox: PrivateEngine) -> None:
    zygotes = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and "proa unpack" in leaks.command_of(int(entry.name)) and _parent(entry) == busybox.pid
    ]
    assert zygotes
    for zygote in zygotes:
        kill_and_wait(zygote)
    image = Image(tar(("bin", None), ("bin/sh", Path("/bin/busybox").read_bytes())))
    busybox.proa("load", stdin=image.archive("docker.io/tests/after:1"))
    assert busybox.sh("echo unpacked", image="tests/after:1") == "unpacked"


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_the_engine_dies_between_create_and_start(busybox: PrivateEngine) -> None:
    busybox.proa("create", "--name", "made", "-v", "/anonymous", *QUIET, "busybox", "sh", "-c", "echo ran; exit 4")
    busybox.kill_engine()
    done = busybox.proa("start", "-a", "made", check=False)
    assert (done.stdout, done.returncode) == (b"ran\n", 4)
    busybox.proa("rm", "-v", "made")
    assert busybox.out("volume", "ls", "-q") == ""


def test_two_engines_for_one_root_are_refused(busybox: PrivateEngine) -> None:
    second = busybox.proa("system", "service", env={"PROA_RUN": f"{busybox.directory}/run2"}, check=False, timeout=30)
    assert second.returncode != 0
    assert b"Traceback" not in second.stderr
    assert str(busybox.pid).encode() in second.stderr or b"in use" in second.stderr or b"another" in second.stderr
    assert busybox.sh("echo undisturbed") == "undisturbed"
    shutil.rmtree(busybox.directory / "run2", ignore_errors=True)


def test_an_engine_that_stops_leaves_containers_running(busybox: PrivateEngine, talk: Callable[..., Talk]) -> None:
    client = talk("stays")
    pid = busybox.pid
    busybox.proa("system", "stop")
    until(lambda: leaks.command_of(pid) == "", "the engine to be gone")
    assert client.say("on") == "on 2"
    assert busybox.out("exec", "stays", "echo", "in") == "in"
    assert client.finish() == (b"end\n", b"", 7)
    assert busybox.out("wait", "stays") == "7"


def test_killed_again_and_again(busybox: PrivateEngine) -> None:
    for n in range(4):
        running = [busybox.popen("run", "--rm", *QUIET, "busybox", "echo", str(i)) for i in range(4)]
        with contextlib.suppress(ProcessLookupError):
            busybox.kill_engine()
        for run in running:
            run.communicate(timeout=60)  # some fail, none hangs
        assert busybox.sh(f"echo {n}") == str(n)
    until(lambda: not busybox.out("ps", "-q"), "the last containers to end")
    left = busybox.out("ps", "-aq", "--filter", "status=created").split()
    for name in left:  # created, and its client died before the start: visible, and removable
        busybox.proa("rm", name)
    until(lambda: busybox.containers() == [], "auto-remove containers to go")
