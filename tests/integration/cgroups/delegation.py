"""A cgroup of version 2 that was given to an unprivileged user: his engine limits containers in it.

Not collected here, where cgroups cannot be given to users: `test_user_mode_linux` runs it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_engines import UserEngine, installed

UID = 4321
GIVEN = Path("/sys/fs/cgroup/given")


@pytest.fixture(scope="module")
def mine(busybox_tar: Path) -> Iterator[UserEngine]:
    session = GIVEN / "session"
    session.mkdir(parents=True)
    (GIVEN.parent / "cgroup.subtree_control").write_text("+memory +pids +cpu")
    for path in (GIVEN, session):
        os.chown(path, UID, UID)
        for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(path / name, UID, UID)
    directory = Path(tempfile.mkdtemp(prefix="proa-user-"))
    shutil.copy(busybox_tar, directory / "busybox.tar")
    (directory / "busybox.tar").chmod(0o644)
    os.chown(directory, UID, UID)
    with installed() as place:
        engine = UserEngine(directory, place, str(UID), cgroup=str(session))
        engine.proa("import", str(directory / "busybox.tar"), "busybox")
        yield engine
        engine.close()
    for path in (GIVEN / "proa", session, GIVEN):
        if path.exists():
            path.rmdir()


def test_limits_hold_where_they_were_delegated(mine: UserEngine) -> None:
    assert not [w for w in mine.out("info").splitlines() if "not enforced" in w]
    options = ("--memory", "24m", "--pids-limit", "9")
    done = mine.proa("run", "--rm", "--network", "none", *options, "busybox", "cat", "/sys/fs/cgroup/memory.max")
    assert done.stdout.strip() == str(24 << 20).encode()
    assert b"not enforced" not in done.stderr
    grow = ("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")
    done = mine.proa("run", "--name", "greedy", "--network", "none", *options, "busybox", *grow, check=False)
    assert done.returncode == 137
    assert mine.inspect("greedy")["State"]["OOMKilled"]
    mine.proa("rm", "greedy")


def test_pausing_and_cleaning_up_work_in_it(mine: UserEngine) -> None:
    mine.proa("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "100")
    mine.proa("pause", "one")
    assert mine.inspect("one")["State"]["Status"] == "paused"
    mine.proa("unpause", "one")
    mine.proa("rm", "-f", "one")
    assert not (GIVEN / "proa").exists() or not [p for p in (GIVEN / "proa").iterdir() if p.is_dir()]
