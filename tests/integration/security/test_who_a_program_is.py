"""Advisories about who a program in a container is, what it inherits and what it sees of its makers.

Each test is named after its row of docs/reference/advisories.md.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from advisories import load, refused
from engines import PrivateEngine, until


def test_v11_a_number_is_never_a_name(box: PrivateEngine) -> None:
    image = load(box, ("etc", None), ("etc/passwd", b"1337:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n"))
    assert box.out("run", "--rm", "--network", "none", "-u", "1337", image, "/bin/busybox", "id", "-u") == "1337"
    for user in ("4294967296", "99999999999999999999", "4294967295"):
        assert "out of range" in refused(box, "run", "--rm", "-u", user, image, "/bin/busybox", "id")


def test_v12_process_one_sees_nothing_of_a_joining_process(box: PrivateEngine) -> None:
    script = (
        "while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) ;; *) for l in exe cwd root fd/3 fd/5; do "
        "t=$(readlink $p/$l 2>/dev/null) && echo $l $t; done; esac; done; done"
    )
    box.proa("run", "-d", "--name", "spy", "--network", "none", "busybox", "sh", "-c", script)
    for _ in range(12):
        box.proa("exec", "spy", "true")
    box.proa("kill", "spy")
    seen = set(box.out("logs", "spy").splitlines())
    allowed = {"exe /bin/busybox", "cwd /", "root /"}
    assert {line for line in seen if not re.match(r"fd/\d (pipe|socket|/proc)", line)} <= allowed, seen


def test_v13_no_capability_is_inherited(box: PrivateEngine, running: str) -> None:
    look = "grep -E '^Cap(Inh|Amb)' /proc/self/status"
    none = ["CapInh:\t0000000000000000", "CapAmb:\t0000000000000000"]
    assert box.sh(look).splitlines() == none
    assert box.sh(look, "--user", "1000", "--cap-add", "NET_ADMIN").splitlines() == none
    for options in ((), ("--user", "1000"), ("--privileged",)):
        assert box.out("exec", *options, running, "sh", "-c", look).splitlines() == none


def test_v14_another_user_than_root_has_no_capabilities(box: PrivateEngine, running: str) -> None:
    look = "grep -E '^Cap(Prm|Eff)' /proc/self/status | cut -f2"
    assert set(box.sh(look, "--user", "1000", "--cap-add", "NET_ADMIN").split()) == {"0" * 16}
    assert set(box.out("exec", "--user", "1000", running, "sh", "-c", look).split()) == {"0" * 16}


def test_v18_the_engines_interpreter_is_out_of_reach(box: PrivateEngine, running: str) -> None:
    image = load(box, ("run.sh", b"#!/proc/self/exe\n"))
    done = box.proa("run", "--rm", "--network", "none", image, "/run.sh", check=False)
    assert done.returncode in (126, 127)
    # What a process of ours is, is a sealed copy without a path, and soon the program itself.
    assert box.out("exec", running, "readlink", "/proc/1/exe") in ("/bin/busybox", "/bin/sleep")
    for _ in range(5):
        assert "python" not in box.out("exec", running, "sh", "-c", "readlink /proc/*/exe 2>/dev/null; :")


def test_v19_no_name_service_of_the_image_is_loaded(box: PrivateEngine) -> None:
    members = (("etc", None), ("etc/nsswitch.conf", b"passwd: evil\ngroup: evil\n"), ("lib", None))
    # Not a library at all: loading it would fail the start, looking at it would leave its mark in strace's place.
    image = load(box, *members, ("lib/libnss_evil.so.2", b"not a library"), ("etc/passwd", b"app:x:7:8::/:\n"))
    assert box.out("run", "--rm", "--network", "none", "-u", "app", image, "/bin/busybox", "id", "-u") == "7"


def test_v24_no_variable_of_the_host(box: PrivateEngine, running: str) -> None:
    image = load(box, Env=["SECRET", "", "=x", "A=1\nB=2", "PATH=/bin"])
    secret = {"SECRET": "of the host", "PYTHONPATH": "/nowhere", "LD_LIBRARY_PATH": "/nowhere"}
    said = box.out("run", "--rm", "--network", "none", image, "/bin/busybox", "env", env=secret)
    names = {line.partition("=")[0] for line in said.splitlines()}
    assert names <= {"PATH", "HOSTNAME", "HOME", "A", "B", "SHLVL", "PWD"}
    assert "of the host" not in said
    assert "SECRET" not in box.out("exec", running, "env", env=secret)


def test_v42_the_primary_group_is_among_the_groups(box: PrivateEngine, running: str) -> None:
    for user, ids in (("user", {"1000", "2000"}), ("1000:2000", {"2000"}), ("user:user", {"1000"}), ("0:7", {"7"})):
        assert set(box.sh("id -G", "--user", user).split()) == ids
        assert set(box.out("exec", "--user", user, running, "id", "-G").split()) == ids
    deny = "echo x > /tmp/f; chgrp 2000 /tmp/f; chmod 604 /tmp/f; su user -c 'cat /tmp/f' 2>&1"
    assert "denied" in box.sh(deny + "; :")


@pytest.mark.parametrize("number", [3, 4, 5, 7, 9, 12, 20])
def test_v48_no_descriptor_of_ours_is_a_directory_to_work_in(box: PrivateEngine, running: str, number: int) -> None:
    for place in (f"/proc/self/fd/{number}", f"/proc/1/fd/{number}"):
        done = box.proa("run", "--rm", "--network", "none", "-w", place, "busybox", "pwd", check=False)
        assert done.returncode != 0
        assert box.proa("exec", "-w", place, running, "pwd", check=False).returncode != 0
    for program in (f"/proc/self/fd/{number}/bin/sh", f"/proc/self/fd/{number}"):
        done = box.proa("run", "--rm", "--network", "none", "busybox", program, "-c", "true", check=False)
        assert done.returncode in (126, 127)


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("1", "1:1 or 0"),
        ("1:", "1"),
        (":1", "0:1"),
        ("1:0", "1:0"),
        ("0:5", "0:5"),
        ("user", "1000:1000"),
        ("user:extra", "1000:2000"),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("0x1", None),
        ("\u0661", None),
        ("1 ", None),
        ("4294967295", None),
        ("nobody-of-that-name", None),
    ],
)
def test_v61_every_form_of_a_user_is_who_it_says(box: PrivateEngine, user: str, ids: str | None) -> None:
    done = box.proa(
        "run",
        "--rm",
        "--network",
        "none",
        f"--user={user}",
        "busybox",
        "sh",
        "-c",
        "echo $(id -u):$(id -g)",
        check=False,
    )
    if ids is None:
        assert done.returncode == 125, done
        return
    uid = done.stdout.decode().strip().partition(":")[0]
    assert uid == ids.partition(":")[0]
    if ids.count(":") == 1 and "or" not in ids:
        assert done.stdout.decode().strip() == ids


def test_p07_p11_p12_what_a_program_starts_with(box: PrivateEngine, running: str) -> None:
    look = (
        "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status | cut -f2; ls /proc/self/fd; umask; cat /proc/self/personality"
    )
    for said in (
        box.out("run", "--rm", "--network", "none", "busybox", "sh", "-c", look),
        box.out("exec", running, "sh", "-c", look),
    ):
        blocked, ignored, _caught, *rest = said.splitlines()
        assert (blocked, ignored) == ("0" * 16, "0" * 16)
        # 0, 1, 2 and the directory that ls itself reads.
        assert rest[:4] == ["0", "1", "2", "3"]
        assert rest[4:] == ["0022", "00000000"]


def test_p10_variables_of_the_image_reach_no_interpreter_of_ours(box: PrivateEngine, tmp_path: Path) -> None:
    env = [
        f"PYTHONPATH={tmp_path}",
        f"PYTHONSTARTUP={tmp_path}/x.py",
        f"LD_PRELOAD={tmp_path}/x.so",
        "PYTHONHOME=/x",
        "PATH=/bin",
    ]
    (tmp_path / "sitecustomize.py").write_text(f"open('{tmp_path}/mark', 'w')\n")
    image = load(box, Env=env)
    assert box.out("run", "--rm", "--init", "--network", "none", image, "/bin/busybox", "echo", "ran") == "ran"
    assert not (tmp_path / "mark").exists()


def test_p17_signals_reach_a_program_below_the_init(box: PrivateEngine) -> None:
    script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    box.proa("run", "-d", "--init", "--name", "below", "--network", "none", "busybox", "sh", "-c", script)
    until(lambda: box.out("logs", "below") == "ready", "the trap")
    box.proa("stop", "below")
    assert box.out("logs", "below").split() == ["ready", "caught"]
    assert box.inspect("below")["State"]["ExitCode"] == 5


def test_p31_processes_of_ours_leave_no_core(box: PrivateEngine, running: str) -> None:
    monitor = Path("/proc", str(box.monitor_pid(running)))
    # Not dumpable: nobody but root may even look.
    assert os.stat(monitor / "environ").st_uid == 0
    read = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "cat", f"{monitor}/environ"], capture_output=True, check=False
    )
    assert read.returncode != 0
