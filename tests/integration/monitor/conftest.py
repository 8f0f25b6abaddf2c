"""A nursery per test, and a busybox root file system for its containers."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from monitorlab import APPLETS, Lab, wait_until


@pytest.fixture(scope="session")
def busybox_root() -> Iterator[Path]:
    """A read-only root file system of busybox."""
    root = Path(tempfile.mkdtemp(prefix="proa-test-root-"))
    root.chmod(0o755)
    for name in ("bin", "proc", "sys", "dev", "tmp", "etc"):
        (root / name).mkdir()
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    yield root
    shutil.rmtree(root)


@pytest.fixture
def lab(busybox_root: Path) -> Iterator[Lab]:
    """A nursery of one's own; afterwards no container, socket or cgroup of it is left."""
    directory = Path(tempfile.mkdtemp(prefix="proa-test-monitor-"))
    made = Lab(directory, busybox_root)
    try:
        yield made
        made.close()
        wait_until(lambda: not list(directory.glob("*.sock")))
        assert (directory / "nursery.log").read_text() == ""
        left = [p for c in made.ids for p in Path("/sys/fs/cgroup").glob(f"*/proa/{c}")]
        assert not left
    finally:
        shutil.rmtree(directory)
