"""A cgroup that was made ahead is like one made when it was asked for, and does not stay. Version 1 only."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.errors import Conflict
from proa.linux import process
from proa.runtime import cgroups
from proa.runtime.cgroups.spare import Spare, make_spare, remove_spares

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif([h.name for h in cgroups.hierarchies()] == [""], reason="version 2 knows no renaming"),
]


@pytest.fixture
def owner() -> Iterator[int]:
    child = subprocess.Popen(["sleep", "1000"])
    yield child.pid
    child.kill()
    child.wait()
    remove_spares()


@pytest.fixture
def path() -> str:
    return f"/proa/test-{os.getpid()}-{time.monotonic_ns()}"


def made(owner: int) -> Spare:
    spare = make_spare(owner)
    assert spare is not None
    return spare


def directories(spare: Spare) -> list[Path]:
    return [Path(base + spare.path) for base in spare.bases.values()]


def shown(cgroup: cgroups.Cgroup) -> dict[str, str]:
    """What distinguishes one cgroup from another: devices, limits, processors."""
    names = ("devices.list", "pids.max", "cpuset.cpus", "memory.limit_in_bytes")
    return {name: Path(cgroup.directories[name.partition(".")[0]], name).read_text() for name in names}


@pytest.mark.parametrize("resources", [None, {"pids": {"limit": 7}}, {"devices": [{"allow": False, "access": "rwm"}]}])
def test_it_is_like_any_other(owner: int, path: str, resources: dict[str, object] | None) -> None:
    spare = made(owner)
    inodes = sorted(directory.stat().st_ino for directory in directories(spare))
    cgroup = cgroups.create(path, resources, spare=spare)
    other = cgroups.create(path + "-other", resources)
    try:
        assert sorted(os.stat(directory).st_ino for directory in cgroup.directories.values()) == inodes
        assert not any(directory.exists() for directory in directories(spare))
        assert shown(cgroup) == shown(other)
    finally:
        other.remove()
        cgroup.remove()


def test_elsewhere_it_is_of_no_use_and_goes(owner: int) -> None:
    spare = made(owner)
    parent = f"/test-{os.getpid()}-{time.monotonic_ns()}"
    cgroup = cgroups.create(f"{parent}/one", spare=spare)
    assert all(directory.endswith(f"{parent}/one") for directory in cgroup.directories.values())
    assert not any(directory.exists() for directory in directories(spare))
    cgroup.remove()
    for hierarchy in cgroups.hierarchies():
        os.rmdir(hierarchy.mount_point + parent)


def test_a_name_that_is_taken(owner: int, path: str) -> None:
    first = cgroups.create(path)
    with pytest.raises(Conflict):
        cgroups.create(path, spare=made(owner))
    assert all(os.path.isdir(directory) for directory in first.directories.values())
    first.remove()


def test_who_loses_half_of_it_makes_one(owner: int, path: str) -> None:
    spare = made(owner)
    directories(spare)[-1].rmdir()
    cgroup = cgroups.create(path, spare=spare)
    assert all(os.path.isdir(directory) for directory in cgroup.directories.values())
    assert not any(directory.exists() for directory in directories(spare))
    cgroup.remove()


def test_what_was_half_made_is_finished(owner: int, path: str) -> None:
    spare = made(owner)
    devices = Path(spare.bases["devices"] + spare.path)
    devices.rmdir()
    devices.mkdir()  # whoever made it was killed before it wrote the rules
    assert (devices / "devices.list").read_text().startswith("a *:*")
    found = made(owner)
    assert found.path == spare.path
    assert not (devices / "devices.list").read_text().startswith("a *:*")
    cgroup = cgroups.create(path, spare=found)
    assert "c 1:3" in Path(cgroup.directories["devices"], "devices.list").read_text()
    cgroup.remove()


def test_only_what_nobody_owns_is_removed(owner: int) -> None:
    spare = made(owner)
    remove_spares()
    assert all(directory.is_dir() for directory in directories(spare))
    reused = spare.path.rpartition("-")[0] + f"-{process.start_time(owner) - 1}"  # of an earlier process of that number
    for base in spare.bases.values():
        os.mkdir(base + reused)
    remove_spares()
    assert all(directory.is_dir() for directory in directories(spare))
    assert not any(os.path.exists(base + reused) for base in spare.bases.values())
    remove_spares(owner)
    assert not any(directory.exists() for directory in directories(spare))
