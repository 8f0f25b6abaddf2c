"""The validation programs of opencontainers/runtime-tools 0.9.0 (a Go module) against `proa-runtime`.

Each program creates containers by the runtime and prints TAP. What does not pass is in EXPLAINED, by program, with the
checks that fail; docs/reference/oci-runtime.md has the table for people.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bundles import PROGRAM
from clients import go_compiler
from images import CACHE

pytestmark = [pytest.mark.root, pytest.mark.peers]

MODULE = "github.com/opencontainers/runtime-tools"
VERSION = "v0.9.0"
RECIPE = Path(__file__).parent / "runtime_tools"

# program: what its failing checks look like. "" stands for a program that ends before its first check.
EXPLAINED: dict[str, str] = {
    "hooks_stdin": "the state of the container MUST be passed to",
    "linux_cgroups_blkio": "",
    "linux_cgroups_hugetlb": "",
    "linux_cgroups_memory": "memory kernel(TCP)? is set correctly",
    "linux_cgroups_network": "",
    "linux_cgroups_relative_blkio": "",
    "linux_cgroups_relative_hugetlb": "",
    "linux_cgroups_relative_memory": "memory kernel(TCP)? is set correctly",
    "linux_cgroups_relative_network": "",
    "linux_mount_label": "",
    "linux_ns_itype": "cannot run validation tests",
    "linux_ns_path": "set mnt namespace by path",
    "linux_process_apparmor_profile": "",
    "linux_rootfs_propagation": "check root propagation",
    "misc_props": "MUST NOT generate an error if they encounter an unknown annotation key",
    "mounts": r"mounts\[(9|10)\] \(/mnt/etc-r?shared\) found in order",
    "pidfile": "create with '--pid-file' option works",
    "process_capabilities": "capability CAP_SYS_RESOURCE",
    "process_capabilities_fail": "",
    "process_rlimits": "RLIMIT_NOFILE",
    "start": "",
}
# 112 containers, one for each combination of what linux_cgroups_relative_cpus checks with one.
LEFT_OUT = {"linux_cgroups_cpus"}


def _build() -> Path:
    """A directory with the programs, made once."""
    target = CACHE / f"runtime-tools-{VERSION}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "runtime-tools.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "done").exists():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(RECIPE, target / "src")
            env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -trimpath"}
            command = [go_compiler(), "build", "-ldflags=-s -w", "-o", f"{target}/", f"{MODULE}/cmd/runtimetest",
                       f"{MODULE}/validation/..."]  # fmt: skip
            done = subprocess.run(command, cwd=target / "src", env=env, capture_output=True, text=True, check=False)
            if done.returncode and re.search(r"dial tcp|no such host|timeout|Forbidden|unreachable", done.stderr):
                pytest.skip(f"the Go module proxy cannot be reached: {done.stderr[-300:]}")
            assert done.returncode == 0, done.stderr
            where = [go_compiler(), "list", "-m", "-f", "{{.Dir}}", MODULE]
            source = subprocess.run(where, cwd=target / "src", env=env, capture_output=True, text=True, check=True)
            shutil.copyfile(f"{source.stdout.strip()}/rootfs-amd64.tar.gz", target / "rootfs-amd64.tar.gz")
            (target / "done").touch()
    return target


@pytest.fixture(scope="session")
def programs() -> Path:
    return _build()


@pytest.fixture
def cgroups_of_one(name: str) -> Iterator[None]:
    """The programs about cgroups all use the same one."""
    if "cgroups" not in name and name not in ("delete_resources", "delete_only_create_resources"):
        yield
        return
    with open(CACHE / "runtime-tools-cgroups.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        for controller in Path("/sys/fs/cgroup").iterdir():
            for name in ("cgrouptest", "testdir/cgrouptest", "testdir"):
                if (controller / name).is_dir():
                    (controller / name).rmdir()


# Programs that wait ten seconds, once or twice, for a status that does not come, with any runtime.
WAITING = ("delete", "kill", "pidfile")
_NAMES = """
config_updates_without_affect create default delete_only_create_resources delete_resources hooks hooks_stdin
hostname kill_no_effect killsig linux_cgroups_blkio linux_cgroups_devices linux_cgroups_hugetlb
linux_cgroups_memory linux_cgroups_network linux_cgroups_pids linux_cgroups_relative_blkio linux_cgroups_relative_cpus
linux_cgroups_relative_devices linux_cgroups_relative_hugetlb linux_cgroups_relative_memory
linux_cgroups_relative_network linux_cgroups_relative_pids linux_devices linux_masked_paths linux_mount_label
linux_ns_itype linux_ns_nopath linux_ns_path linux_ns_path_type linux_process_apparmor_profile linux_readonly_paths
linux_rootfs_propagation linux_seccomp linux_sysctl linux_uid_mappings misc_props mounts poststart
poststart_fail poststop poststop_fail prestart prestart_fail process process_capabilities process_capabilities_fail
process_oom_score_adj process_rlimits process_rlimits_fail process_user root_readonly_true start state
"""
NAMES = _NAMES.split()


@pytest.mark.usefixtures("cgroups_of_one")
@pytest.mark.parametrize("name", NAMES)
def test_validation(programs: Path, tmp_path: Path, name: str) -> None:
    validate(programs, tmp_path, name)


def test_validation_that_takes_time(programs: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(len(WAITING)) as pool:
        for validated in [pool.submit(validate, programs, tmp_path / name, name) for name in WAITING]:
            validated.result()


def validate(programs: Path, directory: Path, name: str) -> None:
    """Run one program in a directory of its own and judge it."""
    directory.mkdir(exist_ok=True)
    runtime = directory / "runtime"
    runtime.write_text(f'#!/bin/sh\nexec {PROGRAM} --root {directory}/state "$@"\n')
    runtime.chmod(0o755)
    for file in ("runtimetest", "rootfs-amd64.tar.gz"):  # the programs would copy a link as a link
        shutil.copy(programs / file, directory / file)
    env = {**os.environ, "RUNTIME": str(runtime), "TMPDIR": str(directory)}
    done = subprocess.run(
        [str(programs / name)], cwd=directory, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    output = done.stdout + done.stderr
    failed = re.findall(r"^not ok \d+ ?-? ?(.*)$", done.stdout, re.MULTILINE)
    pattern = EXPLAINED.get(name)
    if pattern is None:
        assert (done.returncode, failed) == (0, []), output[-3000:]
    elif pattern:
        assert [check for check in failed if not re.search(pattern, check)] == [], output[-3000:]
    assert "Traceback" not in output
    for left in sorted((directory / "state").iterdir()) if (directory / "state").exists() else []:
        subprocess.run([str(runtime), "delete", "--force", left.name], check=True)


def test_every_program_is_run_or_explained(programs: Path) -> None:
    built = {path.name for path in programs.iterdir() if os.access(path, os.X_OK) and path.is_file()}
    assert built - {"runtimetest"} == {*NAMES, *WAITING, *LEFT_OUT}
    page = (Path(__file__).parents[2] / "docs/reference/oci-runtime.md").read_text()
    assert [name for name in (*EXPLAINED, *LEFT_OUT) if f"`{name}`" not in page] == []
