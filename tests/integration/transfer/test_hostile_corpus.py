"""More than 160 hostile archives: each is contained, or refused with a reason, within 2 s and 64 MiB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).parents[2] / "support" / "hostile_program.py"
CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def cgroups() -> Iterator[list[Path]]:
    """A cgroup to limit memory and one to count processor time; one for both with version 2."""
    parents = [CGROUPS / "memory", CGROUPS / "cpuacct"] if (CGROUPS / "memory").exists() else [CGROUPS]
    made = [parent / f"hostile-archives-{os.getpid()}" for parent in parents]
    for path in made:
        path.mkdir()
    yield [made[0], made[-1]]
    for path in made:
        path.rmdir()


def test_hostile_archives(tmp_path: Path, cgroups: list[Path]) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), *map(str, cgroups)], capture_output=True, text=True, check=False
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (results[-1:], done.stderr)
    assert len(results) >= 160
    wrong = []
    for name, contained, outcome, message, seconds, cpu, untouched in results:
        refused = outcome not in ("loaded", "Internal", "Unavailable") and message.isprintable() and len(message) < 500
        if not (refused or (contained and outcome == "loaded")) or not untouched:
            wrong.append(f"{name}: {outcome} {message!r}, canary untouched: {untouched}")
        # Processor time, so that a busy machine proves nothing; and no waiting for anything.
        if cpu > 2 or seconds > 30:
            wrong.append(f"{name}: {cpu:.1f} s of processor time in {seconds:.1f} s")
    assert not wrong, "\n".join(wrong)
