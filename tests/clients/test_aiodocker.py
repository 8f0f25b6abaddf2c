"""aiodocker's own test-suite, against the engine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import clients
import pytest
from engines import PrivateEngine
from registries import Registry

pytestmark = [pytest.mark.root, pytest.mark.peers]

# Swarms are not there, ssh and TLS contexts are the client's own; building comes later.
IGNORED = ("swarm", "nodes", "services", "ssh", "configs", "secrets", "context", "stream", "docker_close")
DESELECTED = ("build", "prune_images")


@pytest.mark.timeout(300)
def test_its_own_suite(hub: PrivateEngine, registry: Registry, tmp_path: Path) -> None:
    clients.push_programs(registry, hub, tmp_path)
    hub.proa("pull", "-q", "python:3.13-alpine")
    hub.proa("tag", "python:3.13-alpine", "python")
    place, python = clients.aiodocker_suite()
    argv = [str(python), "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "--timeout", "100"]
    argv += ["-W", "ignore::ResourceWarning", "-W", "ignore::pytest.PytestUnraisableExceptionWarning"]
    for name in IGNORED:
        argv += ["--ignore", f"tests/test_{name}.py"]
    argv += ["-k", " and ".join(f"not {name}" for name in DESELECTED)]
    env = {
        **hub.env,
        "DOCKER_HOST": hub.socket,
        "TESTCONTAINERS_RYUK_DISABLED": "true",
        "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
        "TESTCONTAINERS_CONNECTION_MODE": "docker_host",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(argv, cwd=place, env=env, capture_output=True, text=True, check=False)
    closing = done.stdout.strip().splitlines()[-1]
    for image in hub.out("images", "-q").split():
        hub.proa("rmi", "-f", image, check=False)
    hub.proa("volume", "prune", "-af")
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.search(r"(\d+) passed", closing)
    assert passed is not None
    assert int(passed[1]) > 90, closing
