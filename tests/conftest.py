"""Fixtures of every suite, and the rule that a run leaves the machine as it found it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

import certificates
import engines
import images
import leaks
import registries

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("busy machine", deadline=None)
hypothesis.settings.load_profile("busy machine")

_before = pytest.StashKey[dict[str, set[str]]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput") and os.geteuid() == 0:
        session.config.stash[_before] = leaks.snapshot()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    before = session.config.stash.get(_before, None)
    if before is None:
        return
    left = leaks.lasting_since(before)
    if left:
        sys.stderr.write("\nthe test run left behind:\n" + "\n".join(left) + "\n")
        if session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Why tests were repeated: a test that passes the second time is a defect to look for."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"repeated: {report.nodeid} ({report.when})", "-")
        terminalreporter.write_line(report.longreprtext[-3000:])


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


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates for TLS, see `certificates.make_pairs`; the directory is a DOCKER_CERT_PATH."""
    directory = tmp_path_factory.mktemp("tls")
    certificates.make_pairs(directory)
    return directory


@pytest.fixture
def busybox(engine: engines.PrivateEngine, busybox_tar: Path) -> engines.PrivateEngine:
    """A private engine that has the image `busybox`."""
    engine.proa("import", str(busybox_tar), "busybox")
    return engine


@pytest.fixture(scope="session")
def _worker_engine(busybox_tar: Path) -> Iterator[engines.PrivateEngine]:
    private = engines.PrivateEngine(Path(tempfile.mkdtemp(prefix="proa-test-")))
    private.proa("import", str(busybox_tar), "busybox")
    yield private
    private.close()


@pytest.fixture
def box(_worker_engine: engines.PrivateEngine) -> Iterator[engines.PrivateEngine]:
    """An engine with the image `busybox`, shared by the tests of this process that only add containers and images.

    After each test its containers are removed and no process of them may be left; the rest is checked at the end.
    """
    shared = _worker_engine
    before = leaks.users_of(shared.directory)
    defects = shared.log().count("Traceback")
    yield shared
    assert shared.log().count("Traceback") <= defects, shared.log()
    ids = shared.out("ps", "-aq").split()
    if ids:
        shared.proa("rm", "-f", "-v", *ids)
    busybox = shared.inspect("busybox")["Id"]
    for row in shared.out("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").splitlines():
        identity, _, name = row.partition(" ")
        if "<none>" in name and identity != busybox:
            shared.proa("rmi", "-f", identity, check=False)  # gone already when it had two such names
        elif "<none>" not in name and name not in ("busybox:latest", "hello:latest"):
            shared.proa("rmi", "-f", name)
    shared.proa("image", "prune", "-f")
    assert shared.inspect("busybox")["Id"] == busybox
    engines.until(
        lambda: not [u for u in leaks.users_of(shared.directory) if u not in before and "monitor" in u],
        f"the processes of the test's containers to end: {leaks.users_of(shared.directory)}",
    )


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    """A docker-registry on loopback for all tests of this process."""
    found = registries.Registry(tmp_path_factory.mktemp("registry"))
    yield found
    found.close()


@pytest.fixture
def serve_blobs() -> Iterator[Callable[..., registries.BlobServer]]:
    """Starts read-only registries over blobs in memory."""
    started: list[registries.BlobServer] = []

    def start(*args: Any) -> registries.BlobServer:
        started.append(registries.BlobServer(*args))
        return started[-1]

    yield start
    for server in started:
        server.close()
