"""One engine of proa, and one dockerd, for the tests of a module; each test has its own containers."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import engines
import pytest

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def shared(busybox_tar: Path) -> Iterator[engines.PrivateEngine]:
    """An engine with the image `busybox`, used by all tests of a module."""
    private = engines.PrivateEngine(Path(tempfile.mkdtemp(prefix="proa-cli-")))
    try:
        private.proa("import", str(busybox_tar), "busybox")
        yield private
    finally:
        private.close()


@pytest.fixture(scope="module")
def dockerd(busybox_tar: Path) -> Iterator[str]:
    """The address of a dockerd with the image `busybox`, without a network of its own."""
    with tempfile.TemporaryDirectory(prefix="proa-peer-") as directory:
        socket = f"{directory}/d.sock"
        command = ["dockerd", "--data-root", f"{directory}/root", "--exec-root", f"{directory}/exec"]
        command += ["--pidfile", f"{directory}/pid", "-H", f"unix://{socket}", "--bridge", "none", "--iptables=false"]
        with open(f"{directory}/log", "wb") as log:
            daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(200):
                if os.path.exists(socket) and _docker(socket, "version").returncode == 0:
                    break
                time.sleep(0.1)
            _docker(socket, "import", str(busybox_tar), "busybox").check_returncode()
            yield f"unix://{socket}"
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)
            _unmount(directory)


def _docker(socket: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["docker", "-H", f"unix://{socket}", *arguments], capture_output=True, check=False)


def _unmount(directory: str) -> None:
    """dockerd leaves the mounts of its data root and of its containers' network namespaces behind."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for point in sorted((line.split()[4] for line in lines if f" {directory}/" in line), reverse=True):
        subprocess.run(["umount", "-l", point], check=False)
