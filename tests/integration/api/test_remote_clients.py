"""The docker command by ways other than a plain socket: contexts, and ssh."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root

PROA = Path(sys.executable).with_name("proa")

# Stands for ssh and the machine it leads to: runs what it is told there, with the remote side's own environment.
_SSH = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift 2
unset DOCKER_HOST
PATH={there}:$PATH DOCKER_HOST=unix://{socket} exec sh -c "$*"
"""


def docker(env: dict[str, str], *args: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["docker", *args], env=env, capture_output=True, timeout=60, check=False, **options)


def test_a_context_leads_to_the_engine(shared: Any) -> None:
    env = {name: value for name, value in shared.env.items() if name != "DOCKER_HOST"}
    docker(env, "context", "create", "proa", "--docker", f"host=unix://{shared.socket}")
    docker(env, "context", "use", "proa")
    assert docker(env, "info", "-f", "{{.DockerRootDir}}").stdout.decode().strip() == str(shared.root)
    assert docker(env, "run", "--rm", "--network", "none", "busybox", "echo", "hi").stdout == b"hi\n"


def test_docker_reaches_the_engine_by_ssh(shared: Any, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (there / "docker").symlink_to(PROA)
    (here / "ssh").write_text(_SSH.format(there=there, socket=shared.socket))
    (here / "ssh").chmod(0o755)
    env = shared.env | {"PATH": f"{here}:{os.environ['PATH']}", "DOCKER_HOST": "ssh://somebody@elsewhere"}
    seen = docker(env, "version", "-f", "{{.Server.Version}}")
    assert seen.returncode == 0, seen
    data = os.urandom(1 << 20)
    run = ("run", "--rm", "-i", "--network", "none", "busybox")
    done = docker(env, *run, "sha256sum", input=data)  # the end of input must arrive
    assert done.stdout.split()[:1] == [hashlib.sha256(data).hexdigest().encode()], done
    assert docker(env, *run, "sh", "-c", "echo out; echo err >&2; exit 7").returncode == 7
