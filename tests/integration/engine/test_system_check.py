"""`system check`: one bit flipped in each kind of thing that is stored is found, named, and repaired."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import engines
import pytest
import registries

import proa

pytestmark = pytest.mark.root


def flip(path: Path, at: float = 0.5) -> None:
    """Flip one bit of a file without a trace in its attributes, as a disk does."""
    before = path.lstat()
    raw = bytearray(path.read_bytes())
    raw[int(len(raw) * at)] ^= 1 << random.randrange(8)
    with open(path, "r+b") as f:
        f.write(raw)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.lstat().st_size == before.st_size


def check(engine: engines.PrivateEngine, *options: str, status: int = 1) -> list[dict[str, Any]]:
    done = engine.proa("system", "check", "--format", "json", *options, check=False)
    assert done.returncode == status, done.stdout.decode() + done.stderr.decode() + engine.log()
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def _pulled(registry: registries.Registry, busybox_tar: Path) -> Iterator[engines.PrivateEngine]:
    engine = engines.PrivateEngine(Path(tempfile.mkdtemp(prefix="proa-test-")))
    name = f"{registry.host}/check/busybox:1"
    engine.proa("import", str(busybox_tar), name)
    engine.proa("run", "--name", "second", "--network", "none", name, "sh", "-c", "echo above >/above")
    engine.proa("commit", "second", name)
    engine.proa("rm", "second")
    engine.proa("push", name)
    engine.proa("rmi", "-f", name)
    engine.proa("image", "prune", "-af")
    engine.proa("pull", name)
    yield engine
    engine.close()


@pytest.fixture
def pulled(_pulled: engines.PrivateEngine) -> engines.PrivateEngine:
    """An engine whose one image came from a registry, so that it can be fetched again; each test leaves it repaired."""
    ids = _pulled.out("ps", "-aq").split()
    if ids:
        _pulled.proa("rm", "-f", "-v", *ids)
    return _pulled


def name_of(engine: engines.PrivateEngine) -> str:
    return engine.out("images", "--format", "{{.Repository}}:{{.Tag}}")


def layer_file(engine: engines.PrivateEngine, name: str) -> Path:
    (found,) = engine.root.glob(f"snapshots/*/fs/{name}")
    return found


def test_a_clean_root(pulled: engines.PrivateEngine) -> None:
    done = pulled.proa("system", "check")
    assert done.stdout.decode() == "0 problems found\n"
    assert check(pulled, "--quick", status=0) == []


@pytest.mark.parametrize("number", range(5))
def test_each_blob_is_fetched_again(pulled: engines.PrivateEngine, number: int) -> None:
    blobs = sorted((pulled.root / "content" / "blobs" / "sha256").iterdir())
    if number >= len(blobs):
        assert len(blobs) == 4  # manifest, config, two layers
        return
    blob, name = blobs[number], name_of(pulled)
    whole = blob.read_bytes()
    flip(blob)
    found = check(pulled)
    assert (found[0]["kind"], found[0]["subject"]) == ("blob", f"sha256:{blob.name}")
    assert found[0]["affected"] == [name]
    assert found[0]["repaired"] == ""
    repaired = check(pulled, "--repair", status=0)
    assert repaired[0]["repaired"] == "fetched again"
    assert blob.read_bytes() == whole
    assert check(pulled, status=0) == []
    pulled.proa("run", "--rm", "--network", "none", name, "cat", "/above")


def test_a_pull_brings_what_a_check_found_damaged(pulled: engines.PrivateEngine) -> None:
    """As it must where the registry wants a login, which the engine does not have."""
    for blob in (pulled.root / "content" / "blobs" / "sha256").iterdir():
        flip(blob)
    assert len(check(pulled)) >= 4
    pulled.proa("pull", name_of(pulled))
    assert check(pulled, status=0) == []


def test_missing_blobs_are_fetched_again(pulled: engines.PrivateEngine) -> None:
    name = name_of(pulled)
    blobs = sorted((pulled.root / "content" / "blobs" / "sha256").iterdir())
    whole = {blob.name: blob.read_bytes() for blob in blobs}
    for blob in blobs:
        blob.unlink()
    # The manifest is what is missing; what it names is known only when it is there again.
    (problem,) = check(pulled, "--quick")
    assert (problem["kind"], problem["detail"], problem["affected"]) == ("blob", "it is missing", [name])
    found = check(pulled, "--quick", "--repair", status=0)
    assert [p["repaired"] for p in found] == ["fetched again"] * len(blobs)
    assert {blob.name: blob.read_bytes() for blob in blobs} == whole
    assert check(pulled, status=0) == []


def test_a_check_is_not_misled_by_what_goes_on(engine: engines.PrivateEngine, busybox_tar: Path) -> None:
    """Images come and go, are given other names, collected: none of it is damage, and nothing gets damaged."""
    engine.proa("import", str(busybox_tar), "base:1")
    archive = engine.proa("save", "base:1").stdout
    stopped = threading.Event()
    failures: list[BaseException] = []

    def churn(number: int) -> None:
        try:
            with proa.connect(engine.socket) as client:
                while not stopped.is_set():
                    client.images.load(archive)
                    client.images.import_(busybox_tar, f"churn{number}:1", changes=[f"LABEL n={random.random()}"])
                    client.images.tag("base:1", f"churn{number}:2")
                    client.images.prune()
                    for tag in (1, 2):
                        client.images.remove(f"churn{number}:{tag}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        with proa.connect(engine.socket) as client:
            for _ in range(12):
                assert client.check() == []
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert check(engine, status=0) == []
    engine.proa("run", "--rm", "--network", "none", "base:1", "true")


def test_a_file_of_a_layer_is_unpacked_again(pulled: engines.PrivateEngine) -> None:
    name = name_of(pulled)
    pulled.proa("create", "--name", "user", "--network", "none", name, "true")
    path = layer_file(pulled, "bin/busybox")
    whole = path.read_bytes()
    flip(path)
    (problem,) = check(pulled)
    assert problem["kind"] == "layer"
    assert problem["detail"] == "/bin/busybox (content)"
    assert problem["affected"] == sorted([name, "user"])
    (problem,) = check(pulled, "--repair", status=0)
    assert problem["repaired"] == "unpacked again"
    assert layer_file(pulled, "bin/busybox").read_bytes() == whole
    assert check(pulled, status=0) == []
    assert pulled.out("run", "--rm", "--network", "none", name, "cat", "/above") == "above"
    pulled.proa("start", "-a", "user")


def test_a_layer_in_use_is_left_until_its_containers_stop(pulled: engines.PrivateEngine) -> None:
    name = name_of(pulled)
    pulled.proa("run", "-d", "--name", "busy", "--network", "none", name, "sleep", "1000")
    os.chmod(layer_file(pulled, "etc/passwd"), 0o666)
    (problem,) = check(pulled, "--repair")
    assert problem["detail"] == "/etc/passwd (attributes)"
    assert "stop busy" in problem["hint"]
    pulled.proa("kill", "busy")
    pulled.proa("wait", "busy")
    assert [p["repaired"] for p in check(pulled, "--repair", status=0)] == ["unpacked again"]


def test_a_lost_inventory_is_made_again(pulled: engines.PrivateEngine) -> None:
    one, other = sorted(pulled.root.glob("snapshots/*/inventory"))
    one.unlink()
    flip(other)
    assert [p["kind"] for p in check(pulled)] == ["layer", "layer"]
    for problem in check(pulled, "--repair", status=0):
        assert problem["repaired"] == "its inventory written again, its files are right"
    assert check(pulled, status=0) == []


RECORDS: dict[str, Callable[[engines.PrivateEngine], Path]] = {
    "image": lambda e: next(iter((e.root / "images").glob("*.json"))),
    "committed": lambda e: min((e.root / "snapshots/records/committed").glob("*.json")),
    "container": lambda e: next(iter((e.root / "containers").glob("*/container.json"))),
    "volume": lambda e: next(iter((e.root / "volumes").glob("*/volume.json"))),
}


@pytest.fixture
def full(pulled: engines.PrivateEngine) -> Iterator[engines.PrivateEngine]:
    pulled.proa("volume", "create", "stores")
    pulled.proa("create", "--name", "kept", "-v", "stores:/s", "--network", "none", name_of(pulled), "true")
    yield pulled
    pulled.proa("start", "-a", "kept")


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_is_written_again(full: engines.PrivateEngine, kind: str) -> None:
    record = RECORDS[kind](full)
    flip(record, random.random())
    (problem,) = check(full, "--quick")
    assert (problem["kind"], problem["subject"]) == ("record", str(record))
    assert problem["affected"]
    assert check(full, "--quick", "--repair", status=0)[0]["repaired"]
    assert check(full, status=0) == []


@pytest.mark.parametrize("kind", ["image", "committed"])
@pytest.mark.parametrize("crashed", [False, True])
def test_a_record_that_is_damaged_when_the_engine_starts(full: engines.PrivateEngine, kind: str, crashed: bool) -> None:
    name = name_of(full)
    records = [RECORDS[kind](full)]
    if kind == "committed":  # both layers: the lower one is found by who stands on it, the upper one by its container
        records = sorted(record for record in (full.root / "snapshots/records/committed").glob("*.json"))
    if crashed:
        full.kill_engine()
    else:
        full.proa("system", "stop")
    for record in records:
        flip(record, 0.8)
    assert {p["subject"] for p in check(full, "--quick") if p["kind"] == "record"} >= {
        str(r) for r in records if kind == "committed" or crashed
    }
    check(full, "--repair", status=0)
    assert check(full, status=0) == []
    assert name_of(full) == name
    full.proa("run", "--rm", "--network", "none", name, "cat", "/above")


def test_a_container_whose_record_is_damaged_is_kept(full: engines.PrivateEngine) -> None:
    full.proa("create", "--name", "other", "--network", "none", name_of(full), "true")
    broken = full.inspect("other")["Id"]
    full.proa("system", "stop")
    flip(full.root / "containers" / broken / "container.json")
    (problem,) = check(full, "--repair")
    assert problem["affected"] == [broken[:12]]
    assert str(full.root / "containers" / broken) in problem["hint"]
    assert (full.root / "snapshots/records/active").joinpath(f"container%3A{broken}").is_symlink()
    assert full.containers() == ["kept"]
    shutil.rmtree(full.root / "containers" / broken)
    full.proa("system", "stop")
    assert check(full, status=0) == []


@pytest.mark.parametrize("how", ["flipped", "truncated", "deleted", "deleted while it runs"])
def test_the_index(full: engines.PrivateEngine, how: str) -> None:
    name, index = name_of(full), full.root / "index.sqlite"
    if how != "deleted while it runs":
        full.proa("system", "stop")
    if how == "flipped":
        raw = bytearray(index.read_bytes())
        at = raw.index(b"busybox:1")  # a row, which SQLite itself has no sum of
        raw[at] ^= 1
        index.write_bytes(raw)
        assert {p["kind"] for p in check(full, "--quick")} >= {"index"}
        check(full, "--quick", "--repair", status=0)
    elif how == "truncated":
        os.truncate(index, index.stat().st_size // 2)
    else:
        index.unlink()
    if how == "deleted while it runs":
        assert [p["detail"] for p in check(full, "--quick")] == ["the file is gone"]
        check(full, "--quick", "--repair", status=0)
    assert check(full, status=0) == []
    assert name_of(full) == name
    full.kill_engine()
    assert name_of(full) == name


def test_what_cannot_be_repaired_is_said(busybox: engines.PrivateEngine, busybox_tar: Path) -> None:
    """An image that was imported here: nobody else has its layer."""
    (layer,) = [p for p in (busybox.root / "content/blobs/sha256").iterdir() if p.stat().st_size > 1 << 20]
    flip(layer)
    (problem,) = check(busybox, "--repair")
    assert problem["affected"] == ["docker.io/library/busybox:latest"]
    assert problem["hint"]
    # Bringing the same bytes again does it.
    busybox.proa("import", str(busybox_tar), "again")
    assert check(busybox, status=0) == []


def test_the_sdk(pulled: engines.PrivateEngine) -> None:
    with proa.connect(pulled.socket) as engine:
        assert engine.check() == []
        flip(layer_file(pulled, "above"))
        (problem,) = engine.check(quick=False)
        assert (problem.kind, problem.detail, problem.repaired) == ("layer", "/above (content)", "")
        (problem,) = engine.check(repair=True)
        assert problem.repaired == "unpacked again"
