"""run and exec against proa's engine: output, input, exit statuses, signals, what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import engines
import pytest

pytestmark = pytest.mark.root

NONE = ("--rm", "--network", "none", "busybox")


def started(engine: engines.PrivateEngine, *arguments: str, **kwargs: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [engines.PROA, *arguments],
        env=engine.env,
        stdin=kwargs.get("stdin", subprocess.DEVNULL),  # type: ignore[call-overload]
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def until_running(engine: engines.PrivateEngine, name: str) -> None:
    for _ in range(200):
        if engine.out("ps", "-q", "--filter", f"name=^/?{name}$"):
            return
        time.sleep(0.05)
    raise AssertionError(f"{name} does not run")


def test_output_streams_and_exit_status(shared: engines.PrivateEngine) -> None:
    done = shared.proa("run", *NONE, "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


@pytest.mark.parametrize(
    ("command", "status", "text"),
    [
        (("no-such-command",), 127, "no-such-command"),
        (("/etc/passwd",), 126, "/etc/passwd"),
        (("sh", "-c", "exit 255"), 255, ""),
    ],
)
def test_exit_statuses(shared: engines.PrivateEngine, command: tuple[str, ...], status: int, text: str) -> None:
    done = shared.proa("run", *NONE, *command, check=False)
    assert done.returncode == status
    assert text in done.stderr.decode()
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", "--no-such"), "unknown flag: --no-such"),
        (("run",), "requires at least 1 argument"),
        (("run", "--pull=never", "no-such-image"), "No such image: no-such-image:latest"),
        (("run", "--memory=lots", "busybox"), "invalid size `lots`"),
        (("run", "--network", "no-such-net", "busybox", "true"), "no-such-net"),
        (("create", "Not valid!"), "invalid reference format"),
    ],
)
def test_refusals(shared: engines.PrivateEngine, arguments: tuple[str, ...], text: str) -> None:
    before = shared.out("ps", "-aq")
    done = shared.proa(*arguments, check=False)
    assert done.returncode == (125 if arguments[0] == "run" and len(arguments) > 1 else 1)
    assert text in done.stderr.decode()
    assert shared.out("ps", "-aq") == before


def test_a_name_that_is_taken(shared: engines.PrivateEngine) -> None:
    shared.proa("create", "--name", "taken", "busybox", "true")
    done = shared.proa("run", "--name", "taken", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "taken" in done.stderr.decode()
    shared.proa("rm", "taken")


def test_input_from_a_pipe_is_passed_on_whole(shared: engines.PrivateEngine) -> None:
    payload = os.urandom(8 << 20)
    assert shared.proa("run", "-i", *NONE, "cat", stdin=payload).stdout == payload
    assert shared.proa("run", "-i", *NONE, "wc", "-c", stdin=b"x" * 100).stdout.strip() == b"100"


def test_without_i_there_is_no_input(shared: engines.PrivateEngine) -> None:
    assert shared.proa("run", *NONE, "wc", "-c", stdin=b"unread").stdout.strip() == b"0"


def test_a_reader_that_goes_away_ends_the_command(shared: engines.PrivateEngine) -> None:
    process = started(shared, "run", "--name", "endless", "--network", "none", "busybox", "yes")
    assert process.stdout is not None
    assert process.stdout.read(4) == b"y\ny\n"
    process.stdout.close()
    assert process.wait(20) == 141
    assert process.stderr is not None
    process.stderr.close()
    shared.proa("rm", "-f", "endless")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_container(shared: engines.PrivateEngine, number: signal.Signals) -> None:
    name = f"signalled-{number}"
    script = f"trap 'echo got; exit 42' {number.name[3:]}; echo ready; while :; do sleep 0.1; done"
    process = started(shared, "run", "--name", name, *NONE, "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (42, b"got\n")


def test_detached(shared: engines.PrivateEngine) -> None:
    identity = shared.out("run", "-d", "--name", "detached", "--network", "none", "busybox", "sleep", "60")
    assert len(identity) == 64
    assert shared.out("ps", "-q", "--no-trunc", "--filter", "name=detached") == identity
    assert shared.out("exec", "detached", "echo", "in") == "in"
    done = shared.proa("exec", "-i", "detached", "sh", "-c", "cat; exit 3", stdin=b"words", check=False)
    assert (done.returncode, done.stdout) == (3, b"words")
    done = shared.proa("exec", "-e", "A=1", "-w", "/tmp", "-u", "1000", "detached", "sh", "-c", "echo $A $PWD; id -u")
    assert done.stdout == b"1 /tmp\n1000\n"
    assert shared.proa("exec", "detached", "no-such-command", check=False).returncode == 127
    assert shared.proa("exec", "detached", "/etc/passwd", check=False).returncode == 126
    assert shared.proa("exec", "-d", "detached", "touch", "/made").stdout == b""
    for _ in range(100):
        if shared.proa("exec", "detached", "test", "-e", "/made", check=False).returncode == 0:
            break
        time.sleep(0.02)
    assert shared.out("stop", "-t", "0", "detached") == "detached"
    done = shared.proa("exec", "detached", "true", check=False)
    assert done.returncode == 1
    assert "not running" in done.stderr.decode()
    assert shared.out("wait", "detached") == "137"
    assert shared.out("rm", "detached") == "detached"


def test_environment_and_files(shared: engines.PrivateEngine, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("FROM_FILE=1\nBOTH=file\nPROA_TEST_OWN\n")
    done = shared.proa(
        *("run", "--env-file", str(tmp_path / "env"), "-e", "BOTH=option", "-e", "PROA_TEST_OWN"),
        *(*NONE, "sh", "-c", "echo $FROM_FILE $BOTH $PROA_TEST_OWN"),
        env={"PROA_TEST_OWN": "mine"},
    )
    assert done.stdout == b"1 option mine\n"


def test_cidfile(shared: engines.PrivateEngine, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    identity = shared.out("create", "--cidfile", str(path), "--name", "filed", "busybox", "true")
    assert path.read_text() == identity
    done = shared.proa("create", "--cidfile", str(path), "busybox", "true", check=False)
    assert done.returncode == 1
    assert "exists" in done.stderr.decode()
    shared.proa("rm", "filed")


def test_start_attached_and_logs(shared: engines.PrivateEngine) -> None:
    shared.proa(
        "create", "-i", "--name", "later", "--network", "none", "busybox", "sh", "-c", "read x; echo got $x; exit 5"
    )
    done = shared.proa("start", "-a", "-i", "later", stdin=b"word\n", check=False)
    assert (done.returncode, done.stdout) == (5, b"got word\n")
    assert shared.out("logs", "later") == "got word"
    stamped = shared.out("logs", "-t", "--tail", "1", "later")
    assert stamped.endswith("Z got word")
    assert shared.out("logs", "--since", "2100-01-01T00:00:00Z", "later") == ""
    shared.proa("rm", "later")


def test_logs_follow_until_the_end(shared: engines.PrivateEngine) -> None:
    script = "for i in 1 2 3; do echo $i; echo e$i >&2; sleep 0.2; done"
    shared.proa("run", "-d", "--name", "talker", "--network", "none", "busybox", "sh", "-c", script)
    done = shared.proa("logs", "-f", "talker")
    assert (done.stdout, done.stderr) == (b"1\n2\n3\n", b"e1\ne2\ne3\n")
    shared.proa("rm", "talker")


def test_attach_to_a_running_one(shared: engines.PrivateEngine) -> None:
    script = "while read x; do echo got $x; [ $x = end ] && exit 9; done"
    shared.proa("run", "-d", "-i", "--name", "listener", "--network", "none", "busybox", "sh", "-c", script)
    process = started(shared, "attach", "listener", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"got one\n"
    out, _ = process.communicate(b"end\n", timeout=20)
    assert process.returncode == 9
    assert out in (b"got end\n", b"")  # the end of its input ends an attachment that did not come with `run`
    done = shared.proa("attach", "listener", check=False)
    assert "stopped container" in done.stderr.decode()
    shared.proa("rm", "listener")


def test_many_objects_fail_one_by_one(shared: engines.PrivateEngine) -> None:
    shared.proa("create", "--name", "many1", "busybox", "true")
    shared.proa("create", "--name", "many2", "busybox", "true")
    done = shared.proa("rm", "many1", "nope", "many2", check=False)
    assert done.returncode == 1
    assert done.stdout == b"many1\nmany2\n"
    assert "No such container: nope" in done.stderr.decode()
    assert shared.proa("rm", "-f", "nope").returncode == 0


def test_killing_the_engine_does_not_lose_the_output_or_the_status(shared: engines.PrivateEngine) -> None:
    script = "echo before; sleep 1.5; echo after; exit 11"
    process = started(shared, "run", "--name", "survivor", "--network", "none", "busybox", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"before\n"
    shared.kill_engine()
    out, err = process.communicate(timeout=30)
    assert out == b"after\n"
    assert process.returncode == 11, err
    shared.proa("rm", "survivor")
