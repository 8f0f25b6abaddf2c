"""Containers and clients that take all they can get: the engine answers, limits hold, and all of it can be removed.

With PROA_STRESS=1 the numbers are those of a busy host: 1,000 containers, 200 execs at once, floods of ten seconds.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from engines import PrivateEngine, until

import proa

pytestmark = pytest.mark.root

STRESS = os.environ.get("PROA_STRESS") == "1"
CONTAINERS = 1000 if STRESS else 12
EXECS = 200 if STRESS else 30
FLOOD_S = 10.0 if STRESS else 1.5


def private_kib(pid: int) -> int:
    """Memory that is this process's own."""
    found = re.findall(r"^Private_\w+: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return sum(map(int, found))


def background(box: PrivateEngine, name: str, script: str, *options: str) -> None:
    box.proa("run", "-d", "--name", name, "--network", "none", *options, "busybox", "sh", "-c", script)


def log_sizes(directory: Path) -> Iterator[int]:
    for path in directory.glob("*.log*"):
        with suppress(FileNotFoundError):  # rotated away just now
            if path.suffix != ".part":
                yield path.stat().st_size


@pytest.mark.parametrize(
    ("kind", "script"),
    [
        ("lines", "yes 'a line of an ordinary length, more or less, as logs have it'"),
        ("no-newline", "cat /dev/zero"),
        ("both-streams", "yes out & yes err >&2"),
    ],
)
def test_a_log_flood(box: PrivateEngine, kind: str, script: str) -> None:
    background(box, kind, script, "--log-opt", "max-size=1m", "--log-opt", "max-file=3")
    monitor = box.monitor_pid(kind)
    directory = Path(box.root / "containers" / box.inspect(kind)["Id"])
    with proa.connect(box.socket) as client:
        container = client.containers.get(kind)
        end = time.monotonic() + FLOOD_S
        while time.monotonic() < end:
            begun = time.monotonic()
            assert container.exec(["echo", "here"]).stdout == b"here\n"
            assert time.monotonic() - begun < 10
            assert len(client.containers.list()) >= 1
            time.sleep(0.1)
        assert private_kib(monitor) < 24 << 10
        sizes = list(log_sizes(directory))
        assert sum(sizes) < 4 << 20, sizes
        until(lambda: list(directory.glob("*.gz")), "a compressed log")
        begun = time.monotonic()
        container.remove(force=True)
        assert time.monotonic() - begun < 10


def test_a_client_that_reads_nothing(box: PrivateEngine) -> None:
    """The flood waits for it, and nothing is collected for it; others are served."""
    background(box, "unread", "read x; yes", "-i")
    with proa.connect(box.socket) as client:
        container = client.containers.get("unread")
        stuck = container.attach()
        stuck.write(b"go\n")
        time.sleep(FLOOD_S)
        assert private_kib(box.monitor_pid("unread")) < 16 << 10
        assert container.exec(["echo", "here"]).stdout == b"here\n"
        stuck.close()
        container.remove(force=True)


def test_a_fork_bomb(box: PrivateEngine) -> None:
    background(box, "bomb", "b() { b | b & }; b; sleep 1000", "--pids-limit", "60")
    background(box, "neighbour", "sleep 1000")
    time.sleep(FLOOD_S)
    assert box.out("exec", "neighbour", "echo", "here") == "here"
    refused = box.proa("exec", "bomb", "true", check=False)  # no room for one more process, or just enough
    assert refused.returncode in (0, 1, 125, 126, 128), refused
    begun = time.monotonic()
    box.proa("rm", "-f", "bomb")
    assert time.monotonic() - begun < 15


def test_the_oom_score_of_the_engine_is_not_the_containers(box: PrivateEngine) -> None:
    """Here it is made worse, as making it better is not everybody's to do."""
    background(box, "before", "sleep 1000")
    Path(f"/proc/{box.nursery_pid()}/oom_score_adj").write_text("300")
    background(box, "spare", "sleep 1000")  # its monitor was there already
    background(box, "scored", "sleep 1000", "--oom-score-adj", "50")
    until(lambda: Path(f"/proc/{box.monitor_pid('scored')}/oom_score_adj").read_text() == "300\n")
    for name, score in (("before", "0"), ("spare", "0"), ("scored", "50")):
        assert Path(f"/proc/{box.inspect(name)['State']['Pid']}/oom_score_adj").read_text() == f"{score}\n"
        assert box.out("exec", name, "cat", "/proc/self/oom_score_adj") == score


def test_many_execs_at_once(box: PrivateEngine) -> None:
    background(box, "busy", "sleep 1000")
    barrier = threading.Barrier(EXECS)
    with proa.connect(box.socket) as client, ThreadPoolExecutor(EXECS) as pool:
        container = client.containers.get("busy")
        monitor = box.monitor_pid("busy")

        def one(number: int) -> tuple[int, bytes]:
            barrier.wait()
            done = container.exec(["sh", "-c", f"echo {number}; exit {number % 100}"])
            return done.exit_code, done.stdout

        for number, (code, out) in enumerate(pool.map(one, range(EXECS))):
            assert (code, out) == (number % 100, b"%d\n" % number)
        assert not [e for e in container.execs() if e.running]
        until(lambda: len(os.listdir(f"/proc/{monitor}/fd")) < 30, "the monitor to close what the execs had")
        assert private_kib(monitor) < 16 << 10
        assert box.out("top", "busy").count("\n") == 1


def test_many_containers_come_and_go(box: PrivateEngine) -> None:
    engine = box.pid
    before = len(os.listdir(f"/proc/{engine}/fd"))
    with proa.connect(box.socket) as client, ThreadPoolExecutor(8) as pool:

        def start(number: int) -> proa.Container:
            return client.containers.run_detached("busybox", ["sleep", "1000"], network="none", name=f"many-{number}")

        containers = list(pool.map(start, range(CONTAINERS)))
        begun = time.monotonic()
        assert len(box.out("ps", "-q").split()) == CONTAINERS
        assert time.monotonic() - begun < 2
        list(pool.map(lambda container: container.remove(force=True), containers))
        assert client.containers.list(all=True) == []
    assert not list((box.run_dir / "monitors").iterdir())
    until(lambda: len(os.listdir(f"/proc/{engine}/fd")) <= before + 16, "the engine to close what they had")
