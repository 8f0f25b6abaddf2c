"""kill -9 at the n-th step of what changes the store: the next engine finds all of it or nothing, and no leftovers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_bench import FaultBench, failures, points, walks
from registries import Registry

pytestmark = pytest.mark.root

OPERATIONS = ("pull", "load", "import", "commit", "create", "rmi", "prune", "gc", "push")
VOLUMES = ("copy-up", "volume-import", "volume-replace", "volume-clone", "volume-remove")


@pytest.fixture(scope="module")
def bench(registry: Registry) -> Iterator[FaultBench]:
    # In memory: a kill loses nothing that was written, and a disk would have every point wait for its flushes.
    with tempfile.TemporaryDirectory(prefix="proa-fault-", dir="/dev/shm") as directory:
        made = FaultBench(Path(directory), registry)
        yield made
        made.close()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", OPERATIONS + VOLUMES)
def test_killed_at_a_step(bench: FaultBench, name: str) -> None:
    steps = bench.reference(name)[3]
    for at in points(steps, 6):
        with bench.copy() as root:
            answer = bench.driver.ask(root, *bench.operations[name], mode="kill", at=at)
            bench.verify(name, root, answer, also=f"killed at {at} of {steps}")


@pytest.mark.parametrize("call", ["mkdirat", "write", "utimensat"])
def test_worker_killed_at_a_call(bench: FaultBench, call: str) -> None:
    """The engine says that the unpacking died, keeps nothing of the layer, and does it at the next attempt."""
    failed = 0
    for at in points(4 if call == "write" else 3, 2):  # there are few writes: a decoder has its own process
        with bench.copy() as root:
            answer = bench.driver.ask(root, *bench.operations["pull"], ["walk"], worker=call, at=at)
            failed += len(failures(answer))
            for failure in failures(answer):
                assert failure["code"] == "unpack-worker", failure
            assert not walks(answer)[0]["problems"]
            bench.verify("pull", root, answer, also=f"worker killed at {call} {at}")
    assert failed
