"""Version 2 of cgroups for real: the tests of both versions once more, in a machine that has version 2 only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import user_mode_linux

HERE = Path(__file__).parent
# Two machines, so that two workers can have one each.
TESTS = {
    "what this machine's version has, too": [
        HERE / "test_limited_containers.py",
        HERE.parent / "runtime/test_container_cgroups.py",
        HERE.parent / "runtime/test_new_cgroup_parents.py",
        HERE.parent / "runtime/test_version_two.py",
    ],
    "what was given to a user, and proa-runtime": [
        HERE / "delegation.py",
        f"{HERE.parent}/runtime/test_oci_runtime.py::test_pause_resume_update_and_events",
        f"{HERE.parent}/runtime/test_oci_configs.py::test_devices_are_made_and_only_allowed_ones_open",
    ],
}


@pytest.mark.parametrize("what", TESTS)
def test_everything_holds_on_version_two(busybox_tar: Path, what: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--color=no", "--tb=short", "-p", "no:cacheprovider"]
    command += ["-p", "pytest_timeout"]
    status, said = user_mode_linux.run([*command, *map(str, TESTS[what])], files=[busybox_tar])
    assert status == 0, said
    assert " passed" in said
    assert " skipped" not in said
