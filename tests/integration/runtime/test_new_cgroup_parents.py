"""Cgroups below a parent that another process has made a moment ago, or is about to remove."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proa.runtime import cgroups

pytestmark = pytest.mark.root


@pytest.fixture
def parent() -> Iterator[str]:
    name = f"/proa-test-{secrets.token_hex(4)}"
    yield name
    for hierarchy in cgroups.hierarchies():
        if os.path.isdir(hierarchy.mount_point + name):
            os.rmdir(hierarchy.mount_point + name)


def can_be_joined(cgroup: cgroups.Cgroup) -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            for directory in cgroup.directories.values():
                Path(directory, "cgroup.procs").write_text(str(process.pid))
        finally:
            process.kill()


def test_a_parent_that_nobody_has_filled_yet(parent: str) -> None:
    """Version 1 makes cpusets without processors, which no process may join (ENOSPC)."""
    for hierarchy in cgroups.hierarchies():
        os.mkdir(hierarchy.mount_point + parent)
    cgroup = cgroups.create(f"{parent}/a")
    try:
        can_be_joined(cgroup)
    finally:
        cgroup.remove()


def test_many_at_once_without_a_parent() -> None:
    """Each makes the parent if need be, and each removes it when it seems to be the last."""

    def make(number: int) -> None:
        for turn in range(3):
            cgroup = cgroups.create(f"{shared}/{number}-{turn}")
            try:
                can_be_joined(cgroup)
            finally:
                cgroup.remove()

    shared = f"/proa-test-{secrets.token_hex(4)}/proa"
    try:
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(make, n) for n in range(4)]:
                done.result()
    finally:
        for hierarchy in cgroups.hierarchies():
            for path in (shared, os.path.dirname(shared)):
                if os.path.isdir(hierarchy.mount_point + path):
                    os.rmdir(hierarchy.mount_point + path)
