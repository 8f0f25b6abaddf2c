"""Who may reach an engine: its socket, its directories, and what a killed client leaves."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from engines import PrivateEngine, until

pytestmark = pytest.mark.root


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_gets_in(box: PrivateEngine) -> None:
    sockets = [p for p in box.run_dir.rglob("*") if stat.S_ISSOCK(p.lstat().st_mode)]
    assert box.run_dir / "engine.sock" in sockets
    assert mode(box.run_dir / "engine.sock") == 0o660
    for directory in (box.root, box.run_dir):
        for path in (directory, *(p for p in directory.iterdir() if p.is_dir())):
            assert mode(path) & 0o077 in (0, 0o011, 0o010), path  # to pass through perhaps, never to list or write
    box.proa("run", "-d", "--name", "up", "--network", "none", "busybox", "sleep", "1000")
    container = box.root / "containers" / box.inspect("up")["Id"]
    assert mode(container) & 0o022 == 0
    monitor = list((box.run_dir / "monitors").iterdir())
    assert [mode(p) for p in monitor] == [0o600]
    # No abstract socket, which no directory would protect.
    assert not [line for line in Path("/proc/net/unix").read_text().splitlines() if "@proa" in line]
    assert str(box.root) not in Path("/proc/self/mountinfo").read_text()


def test_engines_by_their_variables(box: PrivateEngine, tmp_path: Path) -> None:
    elsewhere = {"PROA_ROOT": str(tmp_path / "r"), "PROA_RUN": str(tmp_path / "x")}
    # A host that was named is asked as it is, and not started.
    assert box.out("images", "-q", env={**elsewhere, "PROA_HOST": box.socket}) == box.out("images", "-q")
    refused = box.proa("ps", env={**elsewhere, "PROA_HOST": f"unix://{tmp_path}/none.sock"}, check=False)
    assert refused.returncode == 1
    assert b"Traceback" not in refused.stderr
    assert not (tmp_path / "r").exists()


def test_a_killed_client_leaves_its_container(box: PrivateEngine) -> None:
    for options in ((), ("--rm",)):
        run = box.popen("run", "-i", "--name", "left", *options, "--network", "none", "busybox", "cat", stdin=-1)
        assert run.stdin is not None
        assert run.stdout is not None
        run.stdin.write(b"hello\n")
        run.stdin.flush()
        assert run.stdout.readline() == b"hello\n"
        box.proa("pause", "left")  # so that the end of its input is not its end yet
        run.kill()
        run.communicate()
        assert box.inspect("left")["State"]["Status"] == "paused"
        box.proa("unpause", "left")
        if options:
            box.proa("kill", "left", check=False)
            until(lambda: box.containers() == [], "its removal")
        else:
            box.proa("rm", "-f", "left")


def test_what_the_engine_makes_is_not_for_everyone(box: PrivateEngine) -> None:
    box.proa("create", "--name", "made", "--network", "none", "busybox", "true")
    for path in box.root.rglob("*.json"):
        assert os.stat(path).st_mode & 0o007 == 0, path
