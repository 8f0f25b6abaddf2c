"""`proa run`: streams, terminals, flags, signals, exit codes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
from engines import PROA, PrivateEngine, until
from oci_images import Image, tar

pytestmark = pytest.mark.root

QUIET = ("--network", "none")


def test_streams_and_status_are_kept_apart(box: PrivateEngine) -> None:
    done = box.proa("run", "--rm", *QUIET, "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)
    assert box.containers() == []


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 255", 255), ("kill -9 $$; exit 1", 1), ("kill -TERM 1; exit 3", 3)],
)
def test_exit_codes(box: PrivateEngine, script: str, status: int) -> None:
    # A container's first process gets no signal from itself that it has no handler for.
    assert box.proa("run", "--rm", *QUIET, "busybox", "sh", "-c", script, check=False).returncode == status


@pytest.mark.parametrize(("name", "number"), [("KILL", 9), ("SIGTERM", 15), ("1", 1), ("USR1", 10)])
def test_death_by_signal_is_128_and_its_number(box: PrivateEngine, name: str, number: int) -> None:
    run = box.popen("run", "--name", "victim", "--init", *QUIET, "busybox", "sh", "-c", "echo up; exec sleep 1000")
    assert run.stdout is not None
    assert run.stdout.readline() == b"up\n"
    box.proa("kill", "--signal", name, "victim")
    run.communicate(timeout=20)
    assert run.returncode == 128 + number
    assert box.inspect("victim")["State"]["ExitCode"] == 128 + number


def test_large_input_and_output(box: PrivateEngine) -> None:
    data = os.urandom(16 << 20)
    done = box.proa("run", "--rm", "-i", *QUIET, "busybox", "sha256sum", stdin=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert box.proa("run", "--rm", "-i", *QUIET, "busybox", "cat", stdin=data).stdout == data
    assert box.proa("run", "--rm", "-i", *QUIET, "busybox", "cat", stdin=b"").stdout == b""
    # What the program does not read is no reason to hang.
    assert box.proa("run", "--rm", "-i", *QUIET, "busybox", "head", "-c", "1", stdin=data).stdout == data[:1]


def test_without_i_input_is_empty(box: PrivateEngine) -> None:
    assert box.proa("run", "--rm", *QUIET, "busybox", "cat", stdin=b"not for you").stdout == b""


def test_a_reader_that_goes_away_ends_it(box: PrivateEngine) -> None:
    command = f'"$0" run --rm {" ".join(QUIET)} busybox yes | head -n 2'
    done = subprocess.run(["bash", "-c", command, PROA], capture_output=True, env=box.env, timeout=60, check=False)
    assert done.stdout == b"y\ny\n"


def test_detached(box: PrivateEngine) -> None:
    said = box.out("run", "-d", "--name", "behind", *QUIET, "busybox", "sh", "-c", "echo hello; sleep 1000")
    assert said == box.inspect("behind")["Id"]
    assert len(said) == 64
    until(lambda: box.out("logs", "behind") == "hello", "its output")
    assert box.out("ps", "-q", "--no-trunc") == said


def test_rm_removes_container_and_anonymous_volumes(box: PrivateEngine) -> None:
    run = box.popen(
        "run", "--rm", "--name", "brief", "-v", "/data", *QUIET, "busybox", "sh", "-c", "echo up; sleep 1000"
    )
    assert run.stdout is not None
    assert run.stdout.readline() == b"up\n"
    volumes = box.out("volume", "ls", "-q").split()
    assert len(volumes) == 1
    box.proa("kill", "brief")
    run.communicate(timeout=20)
    assert run.returncode == 137
    assert box.containers() == []
    assert box.out("volume", "ls", "-q") == ""


def test_environment(box: PrivateEngine, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# a comment\nFILE=from file\nBOTH=file\n\nGIVEN\n")
    options = ("-e", "A=1", "--env", "BOTH=flag", "--env-file", f"{tmp_path}/env", "-e", "EMPTY=", "-e", "EQUALS=a=b")
    seen = box.sh("env", *options, env={"GIVEN": "from here"}).split("\n")
    for line in ("A=1", "BOTH=flag", "FILE=from file", "EMPTY=", "EQUALS=a=b", "GIVEN=from here"):
        assert line in seen
    image = Image(
        tar(("bin", None), ("bin/sh", Path("/bin/busybox").read_bytes())), config={"Env": ["PATH=/bin", "X=image"]}
    )
    box.proa("load", stdin=image.archive("docker.io/tests/env:1"))
    assert box.sh("echo $X$PATH", image="tests/env:1") == "image/bin"
    assert box.sh("echo $X", "-e", "X=mine", image="tests/env:1") == "mine"


def test_working_directory(box: PrivateEngine) -> None:
    assert box.sh("pwd", "-w", "/usr") == "/usr"
    assert box.sh("pwd; ls -ld .", "-w", "/made/for/it").split()[0] == "/made/for/it"


def test_entrypoints(box: PrivateEngine) -> None:
    image = Image(
        tar(("bin", None), ("bin/busybox", Path("/bin/busybox").read_bytes())),
        config={"Entrypoint": ["/bin/busybox", "echo"], "Cmd": ["from", "image"]},
    )
    box.proa("load", stdin=image.archive("docker.io/tests/entry:1"))
    run = ("run", "--rm", *QUIET)
    assert box.out(*run, "tests/entry:1") == "from image"
    assert box.out(*run, "tests/entry:1", "mine") == "mine"
    assert box.out(*run, "--entrypoint", "/bin/busybox", "tests/entry:1", "echo", "other") == "other"
    assert box.proa(*run, "--entrypoint", "/bin/busybox", "tests/entry:1").stdout.startswith(b"BusyBox")
    assert box.out(*run, "--entrypoint", "", "tests/entry:1", "/bin/busybox", "echo", "none") == "none"


def test_hostname_and_labels(box: PrivateEngine, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("from=file\n")
    labels = ("--label", "a=b=c", "-l", "bare", "--label-file", f"{tmp_path}/labels")
    box.proa("run", "-d", "--name", "named", "--hostname", "ship", *labels, *QUIET, "busybox", "sleep", "1000")
    assert box.out("exec", "named", "hostname") == "ship"
    assert "ship" in box.out("exec", "named", "cat", "/etc/hostname")
    assert box.inspect("named")["Config"]["Labels"] == {"a": "b=c", "bare": "", "from": "file"}


def test_pull_policies(box: PrivateEngine, serve_blobs: object) -> None:
    def image(text: str) -> Image:
        return Image(
            tar(("bin", None), ("bin/sh", Path("/bin/busybox").read_bytes()), ("said", text.encode())),
            config={"Cmd": ["sh", "-c", "cat /said"]},
        )

    old, new = image("old"), image("new")
    blobs = {**old.blobs, **new.blobs}
    server = serve_blobs(blobs, old.digest, old.root["mediaType"])  # type: ignore[operator]
    run = ("run", "--rm", *QUIET)
    assert box.proa(*run, "--pull", "never", server.reference, check=False).returncode == 125
    done = box.proa(*run, server.reference)
    assert done.stdout == b"old"
    assert b"Unable to find image" in done.stderr
    server._root = new.digest
    assert box.proa(*run, "--pull", "missing", server.reference).stdout == b"old"
    assert box.proa(*run, "--pull", "always", "-q", server.reference).stdout == b"new"
    assert box.proa(*run, "--pull", "never", server.reference).stdout == b"new"
    assert box.proa(*run, "--pull", "sometimes", server.reference, check=False).returncode == 125


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_container(box: PrivateEngine, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got; exit 42' {name}; echo ready; while :; do usleep 10000; done"
    run = box.popen("run", "--rm", *QUIET, "busybox", "sh", "-c", script)
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    run.send_signal(number)
    out, err = run.communicate(timeout=20)
    assert (out, err, run.returncode) == (b"got\n", b"", 42)


def test_control_c_at_a_terminal(box: PrivateEngine) -> None:
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do usleep 10000; done"
    for options in (("-it",), ("-i",), ()):
        terminal = box.terminal("run", "--rm", *options, *QUIET, "busybox", "sh", "-c", script)
        terminal.expect(b"ready")
        terminal.send(b"\x03")
        terminal.expect(b"caught")
        assert terminal.end() == 9


def test_a_terminal(box: PrivateEngine) -> None:
    terminal = box.terminal("run", "--rm", "-it", *QUIET, "busybox", "sh", size=(33, 101))
    terminal.expect(b"#")
    terminal.send(b"stty size; tty; test -t 0 && test -t 1 && test -t 2 && echo all-three; echo $TERM\n")
    terminal.expect(b"33 101\r\n")
    terminal.expect(b"/dev/pts/0\r\n")
    terminal.expect(b"all-three\r\n")
    terminal.expect(b"xterm\r\n")
    terminal.resize((40, 120))

    def size() -> bytes:
        terminal.send(b"stty size; echo measu''red\n")
        return terminal.expect(b"measured\r\n")

    until(lambda: b"40 120\r\n" in size(), "the new size")
    terminal.send(b"exit 5\n")
    assert terminal.end() == 5


def test_detach_keys_leave_it_running(box: PrivateEngine) -> None:
    terminal = box.terminal("run", "-it", "--name", "left", *QUIET, "busybox", "sh")
    terminal.expect(b"#")
    terminal.send(b"echo marker > /tmp/here\n")
    terminal.expect(b"#")
    terminal.send(b"\x10\x11")
    assert terminal.end() == 0
    assert box.inspect("left")["State"]["Running"] is True
    assert box.out("exec", "left", "cat", "/tmp/here") == "marker"
    again = box.terminal("attach", "--detach-keys", "ctrl-x", "left")
    again.send(b"echo back $((6*7))\n")
    again.expect(b"back 42")
    again.send(b"\x18")
    assert again.end() == 0
    last = box.terminal("attach", "left")
    last.send(b"exit 6\n")
    assert last.end() == 6
    assert box.inspect("left")["State"]["ExitCode"] == 6


def test_t_without_a_terminal_is_refused(box: PrivateEngine) -> None:
    done = box.proa("run", "--rm", "-it", *QUIET, "busybox", "true", stdin=b"", check=False)
    assert done.returncode in (1, 125)
    assert b"the input device is not a TTY" in done.stderr
    assert box.containers() == []


def test_t_alone_gives_the_program_a_terminal(box: PrivateEngine) -> None:
    assert box.proa("run", "--rm", "-t", *QUIET, "busybox", "sh", "-c", "test -t 1 && echo yes").stdout == b"yes\r\n"


def test_cidfile(box: PrivateEngine, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    box.proa("run", "--name", "noted", "--cidfile", str(path), *QUIET, "busybox", "true")
    assert path.read_text() == box.inspect("noted")["Id"]
    again = box.proa("run", "--rm", "--cidfile", str(path), *QUIET, "busybox", "true", check=False)
    assert again.returncode == 125


def test_fifty_at_once(busybox: PrivateEngine) -> None:
    before = busybox.stored()
    runs = [
        busybox.popen("run", "--rm", *QUIET, "busybox", "sh", "-c", f"echo {n} > /own; cat /own; hostname")
        for n in range(50)
    ]
    names = set()
    for n, run in enumerate(runs):
        out, err = run.communicate(timeout=100)
        assert (run.returncode, err) == (0, b""), n
        number, name = out.decode().split()
        assert number == str(n)
        names.add(name)
    assert len(names) == 50
    assert busybox.containers() == []
    after = busybox.stored()
    assert {k: after[k] - before[k] for k in after} == {k: set() for k in after}
    identity = (busybox.root / "engine-id").read_text().strip()
    assert list(Path("/sys/fs/cgroup").glob(f"*/proa/{identity}*")) == []
