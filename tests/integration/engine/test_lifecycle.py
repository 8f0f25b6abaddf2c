"""Containers from create to rm: what each command does, shows and refuses."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from engines import PrivateEngine, until

pytestmark = pytest.mark.root

QUIET = ("--network", "none")


def up(box: PrivateEngine, name: str, *command: str, options: tuple[str, ...] = ()) -> None:
    """A container in the background."""
    box.proa("run", "-d", "--name", name, *QUIET, *options, "busybox", *(command or ("sleep", "1000")))


def state(box: PrivateEngine, name: str) -> Any:
    return box.inspect(name)["State"]


def test_create_start_wait_rm(box: PrivateEngine) -> None:
    identity = box.out(
        "create", "--name", "steps", *QUIET, "busybox", "sh", "-c", "echo once more >> /file; wc -l < /file; exit 3"
    )
    assert state(box, "steps")["Status"] == "created"
    assert box.out("ps", "-q") == ""
    assert box.out("start", "steps") == "steps"
    assert box.out("wait", "steps") == "3"
    seen = state(box, "steps")
    assert (seen["Status"], seen["ExitCode"], seen["Running"], seen["Pid"]) == ("exited", 3, False, 0)
    assert seen["StartedAt"] < seen["FinishedAt"]
    # The writable layer is the same after a restart, the exit code of -a the program's.
    done = box.proa("start", "-a", identity[:12], check=False)
    assert (done.stdout, done.returncode) == (b"2\n", 3)
    assert box.out("logs", "steps") == "1\n2"
    assert box.out("rm", "steps") == "steps"
    assert box.containers() == []


def test_start_with_input(box: PrivateEngine) -> None:
    box.proa("create", "-i", "--name", "reader", *QUIET, "busybox", "cat")
    assert box.proa("start", "-ai", "reader", stdin=b"typed\n").stdout == b"typed\n"


def test_starting_twice_is_no_failure(box: PrivateEngine) -> None:
    up(box, "twice")
    pid = state(box, "twice")["Pid"]
    assert box.out("start", "twice") == "twice"
    assert state(box, "twice")["Pid"] == pid


def test_stop(box: PrivateEngine) -> None:
    polite = "trap 'echo bye; exit 8' TERM; echo up; while :; do usleep 10000; done"
    up(box, "polite", "sh", "-c", polite)
    until(lambda: box.out("logs", "polite"), "it to be up")
    assert box.out("stop", "polite") == "polite"
    assert state(box, "polite")["ExitCode"] == 8
    assert box.out("logs", "polite") == "up\nbye"
    up(box, "deaf", "sh", "-c", "trap '' TERM; echo up; while :; do usleep 10000; done")
    until(lambda: box.out("logs", "deaf"), "it to be up")
    box.proa("stop", "-t", "0", "deaf")
    assert state(box, "deaf")["ExitCode"] == 137
    other = "trap 'exit 4' USR1; echo up; while :; do usleep 10000; done"
    up(box, "other", "sh", "-c", other, options=("--stop-signal", "USR1"))
    until(lambda: box.out("logs", "other"), "it to be up")
    box.proa("stop", "other")
    assert state(box, "other")["ExitCode"] == 4
    up(box, "asked", "sh", "-c", other)
    until(lambda: box.out("logs", "asked"), "it to be up")
    box.proa("stop", "--signal", "USR1", "asked")
    assert state(box, "asked")["ExitCode"] == 4
    assert box.out("stop", "asked") == "asked"


def test_kill(box: PrivateEngine) -> None:
    up(box, "shot")
    assert box.out("kill", "shot") == "shot"
    assert box.out("wait", "shot") == "137"
    again = box.proa("kill", "shot", check=False)
    assert again.returncode == 1
    assert b"is not running" in again.stderr
    up(box, "counted", "sh", "-c", "trap 'echo one' USR1; echo up; while :; do usleep 10000; done")
    until(lambda: box.out("logs", "counted"), "it to be up")
    box.proa("kill", "-s", "SIGUSR1", "counted")
    until(lambda: "one" in box.out("logs", "counted"), "the signal's trace")
    assert box.proa("kill", "-s", "NOSUCH", "counted", check=False).returncode == 1
    assert state(box, "counted")["Running"] is True


def test_restart(box: PrivateEngine) -> None:
    up(box, "again", "sh", "-c", "echo started; exec sleep 1000")
    pid = state(box, "again")["Pid"]
    box.proa("restart", "-t", "0", "again")
    assert state(box, "again")["Running"] is True
    assert state(box, "again")["Pid"] != pid
    until(lambda: box.out("logs", "again") == "started\nstarted", "its second start")


def test_pause(box: PrivateEngine) -> None:
    up(box, "frozen", "sh", "-c", "while :; do echo tick; usleep 10000; done")
    until(lambda: box.out("logs", "--tail", "1", "frozen"), "output")
    box.proa("pause", "frozen")
    assert state(box, "frozen")["Status"] == "paused"
    assert "(Paused)" in box.out("ps", "--format", "{{.Status}}")
    first = box.out("logs", "frozen")
    for command in (("exec", "frozen", "true"), ("start", "frozen"), ("pause", "frozen")):
        assert box.proa(*command, check=False).returncode in (1, 126)
    assert box.out("logs", "frozen") == first
    box.proa("unpause", "frozen")
    until(lambda: box.out("logs", "frozen") != first, "it to go on")
    box.proa("pause", "frozen")
    box.proa("rm", "-f", "frozen")


def test_wait_for_several(box: PrivateEngine) -> None:
    up(box, "first", "sh", "-c", "read x; exit 1", options=("-i",))
    up(box, "second", "sh", "-c", "exit 2")
    waiting = box.popen("wait", "first", "second")
    box.proa("attach", "first", stdin=b"go\n", check=False)
    assert waiting.communicate(timeout=20)[0] == b"1\n2\n"


def test_logs(box: PrivateEngine) -> None:
    box.proa(
        "run",
        "--name",
        "talks",
        *QUIET,
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5; do echo line $i; done; echo err >&2",
    )
    logs = box.proa("logs", "talks")
    assert (logs.stdout, logs.stderr) == (b"line 1\nline 2\nline 3\nline 4\nline 5\n", b"err\n")
    assert box.out("logs", "--tail", "3", "talks") == "line 4\nline 5"
    assert box.out("logs", "-n", "0", "talks") == ""
    stamped = box.out("logs", "-t", "talks").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line \d$", line) for line in stamped)
    third = stamped[2].split()[0]
    since = [line.split(" ", 1)[1] for line in stamped if line.split()[0] >= third]  # lines may share their time
    until_ = [line.split(" ", 1)[1] for line in stamped if line.split()[0] <= third]
    assert box.out("logs", "--since", third, "talks").splitlines() == since
    assert box.out("logs", "--until", third, "talks").splitlines() == until_
    assert box.out("logs", "--since", "1h", "talks").count("\n") == 4


def test_following_logs(box: PrivateEngine) -> None:
    up(box, "streams", "sh", "-c", "echo before; read x; echo after; read x; printf 'no newline'", options=("-i",))
    until(lambda: box.out("logs", "streams") == "before", "the first line")
    follower = box.popen("logs", "-f", "streams")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"before\n"
    attached = box.popen("attach", "--sig-proxy=false", "streams", stdin=-1)
    assert attached.stdin is not None
    attached.stdin.write(b"\n")
    attached.stdin.flush()
    assert follower.stdout.readline() == b"after\n"
    attached.stdin.write(b"\n")
    attached.stdin.close()
    assert follower.stdout.read() == b"no newline"
    assert follower.wait(20) == 0
    follower.communicate()
    attached.stdin = None
    attached.communicate(timeout=20)
    assert box.out("logs", "-f", "streams") == "before\nafter\nno newline"


def test_rotated_logs(box: PrivateEngine) -> None:
    options = ("--log-opt", "max-size=20k", "--log-opt", "max-file=3")
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
    box.proa("run", "--name", "chatty", *QUIET, *options, "busybox", "sh", "-c", script)
    lines = box.out("logs", "chatty").splitlines()
    assert lines[-1] == "line 1999"
    assert lines == [f"line {n}" for n in range(2000 - len(lines), 2000)]
    assert len(lines) < 2000
    assert box.out("logs", "--tail", "500", "chatty").splitlines() == [f"line {n}" for n in range(1500, 2000)]
    silent = ("--log-driver", "none")
    assert box.out("run", "--name", "silent", *QUIET, *silent, "busybox", "echo", "x") == "x"
    assert b"does not support reading" in box.proa("logs", "silent", check=False).stderr


def test_ps(box: PrivateEngine) -> None:
    up(box, "one", options=("-l", "tier=front"))
    up(box, "two", "sh", "-c", "exit 3", options=("-l", "tier=back", "-l", "x"))
    box.proa("create", "--name", "three", *QUIET, "busybox", "true")
    box.proa("wait", "two")

    def names(*filters: str) -> list[str]:
        options = [word for f in filters for word in ("--filter", f)]
        return box.out("ps", "-a", *options, "--format", "{{.Names}}").split()

    assert box.out("ps", "--format", "{{.Names}}") == "one"
    assert names() == ["three", "two", "one"]
    assert names("status=exited") == ["two"]
    assert names("status=created", "status=running") == ["three", "one"]
    assert names("exited=3") == ["two"]
    assert names("label=tier") == ["two", "one"]
    assert names("label=tier=front") == ["one"]
    assert names("name=^t") == ["three", "two"]
    assert names("ancestor=busybox", "label=x") == ["two"]
    box.proa("commit", "two", "based:1")
    box.proa("create", "--name", "based", "based:1")
    assert names("ancestor=based:1") == ["based"]
    assert names("ancestor=busybox", "name=two", "name=based") == ["based", "two"]
    identity = box.inspect("busybox")["Id"]
    assert names(f"ancestor={identity[:20]}", "name=based") == names(f"ancestor={identity}", "name=based") == ["based"]
    box.proa("tag", "based:1", "moved:1")
    box.proa("create", "--name", "was", "moved:1")
    box.proa("tag", "busybox", "moved:1")
    assert names("ancestor=moved:1", "name=was", "name=one") == ["was", "one"]  # what the name means now
    assert names("ancestor=nosuch") == []
    box.proa("rm", "based", "was")
    assert names("before=two") == ["one"]
    assert names("since=two") == ["three"]
    assert names(f"id={box.inspect('one')['Id'][:10]}") == ["one"]
    assert box.proa("ps", "--filter", "nosuch=x", check=False).returncode == 1
    header, *rows = box.out("ps", "-a", "-n", "2").splitlines()
    assert header.split("  ")[0] == "CONTAINER ID"
    assert [row.split()[-1] for row in rows] == ["three", "two"]
    assert "Exited (3)" in rows[1]
    assert box.out("ps", "-lq", "--no-trunc") == box.inspect("three")["Id"]
    row = json.loads(box.out("ps", "--format", "json"))
    assert (row["Names"], row["Image"], row["State"], row["Labels"]) == ("one", "busybox", "running", "tier=front")
    assert "B (virtual " in box.out("ps", "-s")
    assert box.out("ps", "--format", "table {{.Names}}\t{{.Image}}").split() == ["NAMES", "IMAGE", "one", "busybox"]


def test_inspect(box: PrivateEngine) -> None:
    up(
        box,
        "seen",
        "sleep",
        "900",
        options=("-e", "A=1", "-w", "/tmp", "-u", "1000", "--memory", "64m", "--cap-drop", "CHOWN"),
    )
    seen = box.inspect("seen")
    assert (seen["Name"], seen["Path"], seen["Args"]) == ("/seen", "sleep", ["900"])
    assert seen["Config"]["Image"] == "busybox"
    assert seen["Image"] == box.inspect("busybox")["Id"]
    assert "A=1" in seen["Config"]["Env"]
    assert (seen["Config"]["WorkingDir"], seen["Config"]["User"]) == ("/tmp", "1000")
    assert (seen["HostConfig"]["Memory"], seen["HostConfig"]["CapDrop"]) == (64 << 20, ["CHOWN"])
    assert seen["State"]["Running"] is True
    assert seen["State"]["Pid"] > 1
    assert box.out("inspect", "-f", "{{.State.Status}} {{index .Args 0}}", "seen") == "running 900"
    assert len(json.loads(box.out("inspect", "seen", "busybox"))) == 2
    assert "SizeRw" in json.loads(box.out("inspect", "-s", "seen"))[0]
    for prefix in (4, 12, 64):
        assert box.inspect(seen["Id"][:prefix])["Id"] == seen["Id"]


def test_rename(box: PrivateEngine) -> None:
    up(box, "before")
    box.proa("rename", "before", "after")
    assert box.containers() == ["after"]
    assert box.proa("inspect", "before", check=False).returncode == 1
    up(box, "before")


def test_rm(box: PrivateEngine) -> None:
    up(box, "busy")
    refused = box.proa("rm", "busy", check=False)
    assert refused.returncode == 1
    assert b"You cannot remove a running container" in refused.stderr
    box.proa("create", "--name", "idle", *QUIET, "busybox", "true")
    done = box.proa("rm", "idle", "nosuch", check=False)
    assert (done.returncode, done.stdout) == (1, b"idle\n")
    pid = state(box, "busy")["Pid"]
    assert box.out("rm", "-f", "busy") == "busy"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert box.proa("rm", "-f", "nosuch", check=False).returncode in (0, 1)


def test_prune(box: PrivateEngine) -> None:
    up(box, "stays")
    box.proa("run", "--name", "goes", *QUIET, "busybox", "sh", "-c", "head -c 100000 /dev/zero > /big")
    identity = box.inspect("goes")["Id"]
    said = box.out("container", "prune", "-f")
    assert identity in said
    assert re.search(r"Total reclaimed space: 1[01]\d(\.\d)?kB", said)  # and the places to mount on
    assert box.containers() == ["stays"]


def test_exec(box: PrivateEngine) -> None:
    up(box, "host", "sh", "-c", "exec sleep 1000", options=("-e", "A=outer", "-w", "/usr", "-u", "user"))
    assert box.out("exec", "host", "sh", "-c", "id -u; pwd; echo $A $HOME") == "1000\n/usr\nouter /home/user"
    assert (
        box.out("exec", "-u", "0:0", "-w", "/etc", "-e", "A=inner", "host", "sh", "-c", "id -u; pwd; echo $A")
        == "0\n/etc\ninner"
    )
    done = box.proa("exec", "host", "sh", "-c", "echo out; echo err >&2; exit 9", check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 9)
    assert box.proa("exec", "host", "sh", "-c", "kill -9 $$", check=False).returncode == 137
    data = bytes(range(256)) * 8192
    assert box.proa("exec", "-i", "host", "cat", stdin=data).stdout == data
    assert box.out("exec", "-d", "-u", "0", "host", "sh", "-c", "echo detached > /tmp/made; chmod 666 /tmp/made") == ""
    until(
        lambda: box.proa("exec", "host", "cat", "/tmp/made", check=False).stdout == b"detached\n", "the detached exec"
    )
    assert (
        box.out("exec", "--privileged", "-u", "0", "host", "grep", "CapEff", "/proc/self/status").split()[1] > "000001"
    )
    assert box.proa("exec", "host", "grep", "-c", "Seccomp:.2", "/proc/self/status").stdout == b"1\n"
    box.proa("stop", "-t", "0", "host")
    late = box.proa("exec", "host", "true", check=False)
    assert late.returncode == 1
    assert b"is not running" in late.stderr


def test_exec_in_a_terminal(box: PrivateEngine) -> None:
    up(box, "host")
    terminal = box.terminal("exec", "-it", "host", "sh", size=(22, 77))
    terminal.expect(b"#")
    terminal.send(b"stty size; tty\n")
    terminal.expect(b"22 77\r\n")
    terminal.expect(b"/dev/pts/")
    terminal.send(b"\x03")
    terminal.send(b"exit 4\n")
    assert terminal.end() == 4
    terminal = box.terminal("exec", "-it", "host", "sh")
    terminal.expect(b"#")
    terminal.send(b"\x10\x11")
    assert terminal.end() == 0
    assert state(box, "host")["Running"] is True
    assert box.proa("exec", "-t", "host", "sh", "-c", "test -t 1 && echo yes").stdout == b"yes\r\n"


def test_many_execs_at_once(box: PrivateEngine) -> None:
    up(box, "host")
    running = [box.popen("exec", "host", "sh", "-c", f"echo {n}; exit {n}") for n in range(20)]
    for n, exec_ in enumerate(running):
        out, err = exec_.communicate(timeout=60)
        assert (out, err, exec_.returncode) == (f"{n}\n".encode(), b"", n)


def test_top_and_stats(box: PrivateEngine) -> None:
    up(box, "busy", "sh", "-c", "sleep 1000 & sleep 1000")
    until(lambda: box.out("top", "busy").count("sleep 1000") >= 2, "its processes")
    assert box.out("top", "busy").splitlines()[0].split()[0] in ("UID", "PID")
    row = json.loads(box.out("stats", "--no-stream", "--format", "json", "busy"))
    assert row["Name"] == "busy"
    assert int(row["PIDs"]) == 2


def test_commit_and_run_it(box: PrivateEngine) -> None:
    script = "echo kept > /kept; rm /etc/group; rm -r /home; mkdir /home; chown 5:6 /kept"
    box.proa("run", "--name", "work", *QUIET, "-e", "A=from container", "busybox", "sh", "-c", script)
    changes = [
        "CMD cat /kept",
        "ENV B=2",
        "USER 1000",
        "WORKDIR /usr",
        "LABEL x=y",
        "EXPOSE 80",
        "VOLUME /data",
        "STOPSIGNAL 3",
    ]
    options = [word for change in changes for word in ("--change", change)]
    identity = box.out("commit", *options, "-m", "words", "-a", "somebody", "work", "tests/committed:1")
    image = box.inspect("tests/committed:1")
    assert image["Id"] == identity
    config = image["Config"]
    assert (config["User"], config["WorkingDir"], config["Labels"]) == ("1000", "/usr", {"x": "y"})
    assert "B=2" in config["Env"]
    assert "80/tcp" in config["ExposedPorts"]
    assert "/data" in config["Volumes"]
    assert image["RootFS"]["Layers"][0] == box.inspect("busybox")["RootFS"]["Layers"][0]
    run = ("run", "--rm", *QUIET)
    assert box.out(*run, "tests/committed:1") == "kept"
    seen = box.out(
        *run,
        "tests/committed:1",
        "sh",
        "-c",
        "id -u; pwd; echo $B; stat -c %u:%g /kept; ls /home /etc/group 2>&1; true",
    )
    assert seen.splitlines()[:4] == ["1000", "/usr", "2", "5:6"]
    assert seen.count("No such file") == 1
    assert "user" not in seen.splitlines()[4:]
    # Of a running container too, which is paused meanwhile and goes on.
    up(box, "live", "sh", "-c", "echo x > /live; sleep 1000")
    until(lambda: box.proa("exec", "live", "cat", "/live", check=False).returncode == 0, "the file")
    box.proa("commit", "live", "tests/live:1")
    assert state(box, "live")["Status"] == "running"
    assert box.sh("cat /live", image="tests/live:1") == "x"
    assert box.proa("commit", "--change", "RUN x", "work", "tests/bad:1", check=False).returncode == 1


def test_version_and_info(box: PrivateEngine) -> None:
    version = json.loads(box.out("version", "--format", "json"))
    assert version["Server"]["ApiVersion"] == "1.51"
    assert version["Server"]["MinAPIVersion"] == "1.24"
    up(box, "counted")
    info = json.loads(box.out("info", "--format", "json"))
    assert info["ContainersRunning"] == 1
    assert info["DockerRootDir"] == str(box.root)
    assert "seccomp" in str(info["SecurityOptions"])


def test_events(box: PrivateEngine) -> None:
    identity = box.out("run", "-d", *QUIET, "busybox", "sleep", "1000")
    box.proa("rm", "-f", identity)
    lines = box.out(
        "events", "--since", "10m", "--until", "0s", "--filter", f"container={identity}", "--format", "{{.Action}}"
    )
    assert [line for line in lines.splitlines() if line in ("create", "start", "die", "destroy")] == [
        "create",
        "start",
        "die",
        "destroy",
    ]
