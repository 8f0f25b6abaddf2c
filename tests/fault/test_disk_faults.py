"""Power losses, full disks and failing disks: what was acknowledged stays, what was not is invisible, nothing leaks."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import store_walk
from fault_bench import FaultBench, acknowledged, check_visible, failures, points, walks
from loop_disk import copied, fill, format_disk, mounted, unmount

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]

WRITING = ("pull", "load", "import", "commit", "create", "rmi", "prune", "gc")
VOLUMES = ("copy-up", "volume-import", "volume-replace", "volume-clone", "volume-remove")
NEVER = 1_000_000


@pytest.fixture(scope="module")
def bench() -> Iterator[FaultBench]:
    with tempfile.TemporaryDirectory(prefix="proa-fault-", dir="/dev/shm") as directory:
        made = FaultBench(Path(directory))
        format_disk(made.disk)
        with mounted(made.disk, Path(directory) / "mnt") as place:
            store_walk.copy_tree(made.template, place / "root")
        yield made
        made.close()


@pytest.mark.parametrize("name", [*WRITING, "copy-up", "volume-replace"])
def test_power_loss_at_a_step(bench: FaultBench, name: str) -> None:
    steps = bench.reference(name)[3]
    for at in [*points(steps, 2), NEVER]:
        told = f"power lost at {at} of {steps}"
        with contextlib.ExitStack() as stack:
            disk = stack.enter_context(copied(bench.disk, bench.directory))
            with mounted(disk, bench.directory / "mnt") as place:
                answer = bench.driver.ask(place / "root", *bench.operations[name], mode="stop", at=at)
                after = stack.enter_context(copied(disk, bench.directory))
                if answer["stopped"]:
                    bench.driver.kill_stopped()
            with mounted(after, bench.directory / "mnt") as place:
                bench.verify(name, place / "root", answer, also=told)


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("name", WRITING + VOLUMES)
def test_a_step_that_fails(bench: FaultBench, name: str, fault: str) -> None:
    """The same engine goes on: it says what failed, shows all or nothing, and does it at the next attempt."""
    before, after, files, steps = bench.reference(name)
    operations = bench.operations[name]
    for at in points(steps, 3):
        told = f"{name}: {fault} at {at} of {steps}"
        with bench.copy() as root:
            answer = bench.driver.ask(
                root, *operations, ["walk"], *operations, ["walk"], ["collect"], mode=fault, at=at, close=True
            )
            if fault == "EIO":
                bench.driver.ask(root)  # what could not be tidied up waits for the next start
            found, again = walks(answer)
            failed = failures(answer)
            assert len(failed) <= 1, (told, failed)
            for failure in failed:
                assert failure["kind"] == ("Exhausted" if fault == "ENOSPC" else "Unavailable"), (told, failure)
            check_visible(found, before, after, not failed, told)
            check_visible(again, after, after, True, told)
            left = store_walk.shape(root)
            assert left == files, (told, "left:", sorted(left - files), "missing:", sorted(files - left))


@pytest.mark.parametrize("name", ["pull", "load", "import", "commit", "create", "volume-import"])
def test_a_full_disk(bench: FaultBench, name: str) -> None:
    before, after, _, _ = bench.reference(name)
    operations = bench.operations[name]
    for leave in (0, 16 << 10, 200 << 10, 1 << 20):
        told = f"{name} with {leave} bytes free"
        with copied(bench.disk, bench.directory) as disk, mounted(disk, bench.directory / "mnt") as place:
            ballast = fill(place, leave)
            answer = bench.driver.ask(place / "root", *operations, ["walk"])
            failed = failures(answer)
            assert all(f["kind"] == "Exhausted" for f in failed), (told, failed)
            assert all("space" in f["message"] for f in failed), (told, failed)
            check_visible(walks(answer)[0], before, after, not failed, told)
            # Room can be made although there is none.
            if leave == 0:
                emptied = bench.driver.ask(place / "root", ["rmi", "tests/other:1"], ["prune"], ["walk"])
                assert acknowledged(emptied) == ["rmi", "prune"], (told, emptied)
                assert list(walks(emptied)[0]["names"]) == ["docker.io/tests/base:1"], told
                continue
            ballast.unlink()
            bench.verify(name, place / "root", answer, also=told)
            shutil.rmtree(place / "lost+found", ignore_errors=True)


def test_a_disk_that_breaks(bench: FaultBench) -> None:
    """A loop device whose memory runs out answers writes with EIO: the pull fails, and what was there is there."""
    before, after, _, _ = bench.reference("pull")
    thin = bench.directory / "thin"
    thin.mkdir()
    kilobytes = sum(f.stat().st_blocks for f in [bench.disk]) // 2 + 160
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(thin)], check=True)
    try:
        with copied(bench.disk, thin) as disk:
            with mounted(disk, bench.directory / "mnt") as place:
                answer = bench.driver.ask(place / "root", *bench.operations["pull"], ["walk"])
                (failure,) = failures(answer)
                assert failure["kind"] == "Unavailable", failure
                assert "fails" in failure["message"], failure
                check_visible(walks(answer)[0], before, after, False, "while it breaks")
            subprocess.run(["mount", "-o", f"remount,size={kilobytes + 32768}k", str(thin)], check=True)
            subprocess.run(["e2fsck", "-fy", str(disk)], check=False, capture_output=True)
            with copied(disk, bench.directory) as mended, mounted(mended, bench.directory / "mnt") as place:
                bench.verify("pull", place / "root", answer, also="repaired")
    finally:
        unmount(thin)
