"""Containers of the engine run by crun, runc and gVisor's runsc (Debian's), with `--runtime`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engines import PrivateEngine

pytestmark = [pytest.mark.root, pytest.mark.peers]

runtimes = pytest.mark.parametrize("runtime", ["crun", "runc", "runsc"])


@runtimes
def test_run_gives_output_status_and_limits(box: PrivateEngine, runtime: str) -> None:
    done = box.proa("run", "--rm", "--runtime", runtime, "--network", "none", "busybox",
                    "sh", "-c", "echo out; echo err >&2; id -u; exit 7", check=False)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n0\n", b"err\n")
    script = "id -u; echo $A $HOME; hostname; cat /etc/hostname"
    how = ("--runtime", runtime, "--user", "user", "-e", "A=b", "--hostname", "named")
    done = box.proa("run", "--rm", *how, "busybox", "sh", "-c", script)
    assert done.stdout.split() == [b"1000", b"b", b"/home/user", b"named", b"named"]
    missing = box.proa("run", "--rm", "--runtime", runtime, "busybox", "no-such-command", check=False)
    assert missing.returncode == 127
    assert runtime.encode() in missing.stderr
    assert list(Path(box.run_dir, "runtimes").iterdir()) == []


@runtimes
def test_a_running_container_is_used_like_any_other(box: PrivateEngine, runtime: str) -> None:
    script = "trap 'echo term; exit 3' TERM; while :; do sleep 0.1; done"
    box.proa("run", "-d", "--name", "one", "--runtime", runtime, "-m", "256m", "--pids-limit", "200", "busybox",
             "sh", "-c", script)  # fmt: skip
    done = box.proa("exec", "one", "sh", "-c", "echo more; exit 4", check=False)
    assert (done.returncode, done.stdout) == (4, b"more\n")
    terminal = box.terminal("exec", "-it", "one", "sh", "-c", "test -t 0 && echo in a terminal")
    terminal.expect(b"in a terminal")
    assert terminal.end() == 0
    box.proa("pause", "one")
    assert box.inspect("one")["State"]["Status"] == "paused"
    box.proa("unpause", "one")
    state = box.inspect("one")
    assert state["HostConfig"]["Runtime"] == runtime
    memory = Path("/sys/fs/cgroup/memory/proa")
    limits = [path.read_text() for path in memory.glob(f"*{state['Id']}*/memory.limit_in_bytes")]
    assert limits in ([f"{256 << 20}\n"], [])  # none on a machine without version 1
    box.proa("stop", "one")
    assert box.inspect("one")["State"]["ExitCode"] == 3
    assert box.proa("logs", "one").stdout == b"term\n"
    box.proa("start", "one")
    box.proa("kill", "one")
    box.proa("wait", "one")
    assert box.inspect("one")["State"]["ExitCode"] == 137
    box.proa("rm", "one")


@runtimes
def test_in_a_terminal(box: PrivateEngine, runtime: str) -> None:
    terminal = box.terminal(
        "run",
        "--rm",
        "-it",
        "--runtime",
        runtime,
        "busybox",
        "sh",
        "-c",
        "test -t 0 && echo in a terminal; read a; echo got $a",
    )
    terminal.expect(b"in a terminal")
    terminal.send(b"this\n")
    terminal.expect(b"got this")
    assert terminal.end() == 0


def test_confined_as_by_our_own_runtime(box: PrivateEngine) -> None:
    for runtime in ("proa", "crun", "runc"):
        status = box.proa("run", "--rm", "--runtime", runtime, "busybox", "cat", "/proc/self/status").stdout.decode()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["CapEff"].strip() == fields["CapBnd"].strip() == "00000000a80425fb", runtime
        assert fields["CapInh"].strip() == fields["CapAmb"].strip() == "0" * 16, runtime
        assert fields["Seccomp"].strip() == "2", runtime
        device = box.proa("run", "--rm", "--runtime", runtime, "busybox",
                          "sh", "-c", "mknod /tmp/d b 254 0 && cat /tmp/d", check=False)  # fmt: skip
        assert device.returncode == 1, runtime
        assert b"not permitted" in device.stderr, runtime


def test_runtimes_are_listed_and_chosen_by_name_only(box: PrivateEngine) -> None:
    shown = json.loads(box.proa("info", "--format", "json").stdout)
    assert {"proa", "crun", "runc", "runsc"} <= shown["Runtimes"].keys()
    assert b"Runtimes: crun proa runc runsc" in box.proa("info").stdout
    for bad in ("../../bin/sh", "/bin/sh", "kata", "runc "):
        refused = box.proa("run", "--rm", "--runtime", bad, "busybox", "true", check=False)
        assert refused.returncode == 125, bad
        assert b"unknown or invalid runtime name" in refused.stderr, bad
    refused = box.proa("run", "--rm", "--runtime", "runc", "--init", "busybox", "true", check=False)
    assert b"needs proa's own runtime" in refused.stderr
