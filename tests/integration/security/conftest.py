"""What every test of an advisory has: a container to aim at, and a host that stays as it was."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import PrivateEngine

sys.path.insert(0, str(Path(__file__).parent))

from advisories import KERNEL


@pytest.fixture(autouse=True)
def _the_host_stays(tmp_path: Path) -> Iterator[None]:
    before = [Path(p).read_text() for p in KERNEL] + sorted(os.listdir("/"))
    agents = {str(p): p.read_text() for p in Path("/sys/fs/cgroup").glob("*/release_agent")}
    yield
    assert [Path(p).read_text() for p in KERNEL] + sorted(os.listdir("/")) == before
    assert {str(p): p.read_text() for p in Path("/sys/fs/cgroup").glob("*/release_agent")} == agents


@pytest.fixture
def running(box: PrivateEngine) -> str:
    box.proa("run", "-d", "--name", "target", "--network", "none", "busybox", "sleep", "1000")
    return "target"
