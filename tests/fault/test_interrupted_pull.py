"""kill -9 of the engine in the middle of a pull: pulling again works and downloads nothing twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import PrivateEngine, until
from oci_images import Image, tar
from slow_registry import SlowRegistry

pytestmark = pytest.mark.root

BUSYBOX = tar(("bin", None), ("bin/sh", Path("/bin/busybox").read_bytes()))
BIG = tar(("data", os.urandom(3 << 20)))


@pytest.fixture
def slow() -> Iterator[SlowRegistry]:
    """Serves the first layer at once, and a third of the second one."""
    image = Image(BUSYBOX, BIG, how="none")
    registry = SlowRegistry(image, {layers(image)[1]: 1 << 20})
    yield registry
    registry.close()


def layers(image: Image) -> list[str]:
    return [layer["digest"] for layer in image.manifest["layers"]]


def test_pull_again(engine: PrivateEngine, slow: SlowRegistry) -> None:
    first, second = layers(slow.image)
    empty = engine.stored()
    client = engine.popen("pull", slow.reference)
    until(lambda: slow.held.is_set(), "the second layer's first megabyte")
    path = engine.root / "content" / "blobs" / "sha256" / first.partition(":")[2]
    until(path.exists, "the first layer to be stored")
    parts = engine.root / "content" / "ingests"
    until(lambda: sum(p.stat().st_size for p in parts.rglob("*") if p.is_file()) >= 1 << 20, "the part to be written")
    engine.kill_engine()
    _, err = client.communicate(timeout=30)
    assert client.returncode == 1
    assert err.startswith(b"proa: "), err
    assert b"Traceback" not in err
    slow.release()

    assert engine.out("images", "-q", "--filter", f"reference={slow.reference}") == ""
    said = engine.out("pull", slow.reference)
    assert "Downloaded newer image" in said, said
    assert slow.requests_of(first) == [0]
    begun, resumed = slow.requests_of(second)
    assert (begun, resumed >= 1 << 19) == (0, True)
    assert engine.out("run", "--rm", "--network", "none", slow.reference, "sh", "-c", "echo it runs") == "it runs"
    assert engine.stored()["partial"] - empty["partial"] == set()


def test_a_store_of_an_interrupted_pull_can_be_emptied(engine: PrivateEngine, slow: SlowRegistry) -> None:
    client = engine.popen("pull", slow.reference)
    until(lambda: slow.held.is_set(), "the second layer")
    engine.kill_engine()
    client.communicate(timeout=30)
    slow.release()
    engine.proa("system", "prune", "-a", "-f")
    left = {kind: [name for name in names if "/" in name] for kind, names in engine.stored().items()}
    assert left == {kind: [] for kind in left}
    assert engine.stored()["leases"] == set()
    engine.proa("pull", slow.reference)


def test_load_again(engine: PrivateEngine) -> None:
    image = Image(BUSYBOX, BIG, how="none")
    archive = image.archive("docker.io/tests/loaded:1")
    client = engine.popen("load", stdin=-1)
    assert client.stdin is not None
    client.stdin.write(archive[: len(archive) // 2])
    client.stdin.flush()
    until(lambda: engine.stored()["partial"] | engine.stored()["blobs"], "something to be stored")
    engine.kill_engine()
    _, err = client.communicate(timeout=30)
    assert client.returncode == 1
    assert err.startswith(b"proa: "), err
    engine.proa("load", stdin=archive)
    assert engine.out("run", "--rm", "--network", "none", "tests/loaded:1", "sh", "-c", "echo it runs") == "it runs"
    assert not [p for p in engine.stored()["partial"] if p.count("/")], engine.stored()["partial"]
