"""Fixtures of every suite, and the rule that a run leaves the machine as it found it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

import engines
import images
import leaks

_before = pytest.StashKey[dict[str, set[str]]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput") and os.geteuid() == 0:
        session.config.stash[_before] = leaks.snapshot()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    before = session.config.stash.get(_before, None)
    if before is None:
        return
    left = leaks.new_since(before)
    if left:
        sys.stderr.write("\nthe test run left behind:\n" + "\n".join(left) + "\n")
        if session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def engine() -> Iterator[engines.PrivateEngine]:
    """A private engine; afterwards nothing of it may be left."""
    private = engines.PrivateEngine(Path(tempfile.mkdtemp(prefix="proa-test-")))
    yield private
    private.close()


@pytest.fixture(scope="session")
def busybox_tar() -> Path:
    """A busybox root file system as a tar."""
    return images.busybox_tar()


@pytest.fixture(scope="session")
def debian_tar() -> Path:
    """A Debian minbase root file system as a tar."""
    return images.debian_tar()


@pytest.fixture(scope="session")
def alpine_tar() -> Path:
    """A genuine Alpine root file system as a tar."""
    return images.alpine_tar()


@pytest.fixture
def busybox(engine: engines.PrivateEngine, busybox_tar: Path) -> engines.PrivateEngine:
    """A private engine that has the image `busybox`."""
    engine.proa("import", str(busybox_tar), "busybox")
    return engine
