"""kill -9 of the engine at the n-th step of create, start, exec, stop and rm: the next engine makes something of it.

Whatever the step, the operation was done or it was not; it can be done again; nothing is left (the fixture looks).
With PROA_STRESS=1 every step is tried, else a few of each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from engines import PrivateEngine, kill_and_wait, until

pytestmark = pytest.mark.root

DRIVER = str(Path(__file__).parents[1] / "support" / "dying_engine.py")
POINTS = 1000 if os.environ.get("PROA_STRESS") == "1" else 2

CREATE = ("create", "--name", "xx", "--network", "none", "busybox", "sleep", "1000")
# operation -> (what makes its container ready, the command, what is true when it was done)
OPERATIONS: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "create": ((), CREATE),
    "start": ((CREATE,), ("start", "xx")),
    "exec": ((CREATE, ("start", "xx")), ("exec", "xx", "touch", "/made")),
    "stop": ((CREATE, ("start", "xx")), ("stop", "-t", "0", "xx")),
    "rm": ((CREATE, ("start", "xx")), ("rm", "-f", "xx")),
}


def serve(engine: PrivateEngine, at: int) -> subprocess.Popen[bytes]:
    """Start an engine that will die at a step once it is armed."""
    for name in ("armed", "steps"):
        (engine.run_dir / name).unlink(missing_ok=True)
    socket = engine.run_dir / "engine.sock"
    socket.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, DRIVER, str(at), str(engine.root), str(engine.run_dir)],
        env=engine.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(socket.exists, "the engine")
    return process


def status(engine: PrivateEngine) -> str:
    return engine.out("ps", "-a", "--format", "{{.State}}", "--filter", "name=xx")


def check(engine: PrivateEngine, operation: str, succeeded: bool) -> None:
    """What the next engine says, and that the operation can be done again."""
    found = status(engine)
    allowed = {
        "create": {"", "created"},
        "start": {"created", "running", "exited"},
        "exec": {"running"},
        "stop": {"running", "exited"},
        "rm": {"", "running", "exited"},
    }[operation]
    assert found in allowed, found
    expected = {"create": "created", "start": "running", "exec": "running", "stop": "exited", "rm": ""}[operation]
    if succeeded:  # it was acknowledged
        assert found == expected
    again = engine.proa(*OPERATIONS[operation][1], check=False)
    assert again.returncode == 0 or b"already" in again.stderr or b"No such container" in again.stderr, again
    assert status(engine) == expected
    if operation == "exec":
        assert engine.out("exec", "xx", "ls", "/made") == "/made"


def clean(engine: PrivateEngine) -> None:
    if status(engine):
        engine.proa("rm", "-f", "xx")
    engine.proa("system", "stop")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_a_step(busybox: PrivateEngine, operation: str) -> None:
    prepare, command = OPERATIONS[operation]
    busybox.proa("system", "stop")
    total = attempt(busybox, prepare, command, operation, 0)
    assert total >= 4, total
    points = sorted({1 + n * (total - 1) // max(min(POINTS, total) - 1, 1) for n in range(min(POINTS, total))})
    for at in points:
        attempt(busybox, prepare, command, operation, at)


def attempt(
    engine: PrivateEngine, prepare: tuple[tuple[str, ...], ...], command: tuple[str, ...], operation: str, at: int
) -> int:
    """One life of an engine, which ends at a step; returns how many there were."""
    process = serve(engine, at)
    try:
        for words in prepare:
            engine.proa(*words)
        (engine.run_dir / "armed").touch()
        done = engine.proa(*command, check=False)
        (engine.run_dir / "armed").unlink()
    finally:
        if process.poll() is None:
            kill_and_wait(process.pid)
        process.wait()
    steps = engine.run_dir / "steps"
    count = int(steps.read_text()) if steps.exists() else 0
    check(engine, operation, done.returncode == 0)
    clean(engine)
    return count
