"""kill -9 at each step of what must be atomic, then look with a new process: all of it, or nothing and no leftovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proa.errors import NotFound
from proa.oci import Descriptor, digest_of
from proa.storage import Storage, lock_root, read_blob

DATA = b"x" * 300_000
DIGEST = digest_of(DATA)
BLOB = Descriptor(media_type="text/plain", digest=DIGEST, size=len(DATA))

PRELUDE = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from proa.oci import *
from proa.storage import *
data = b"x" * 300_000
blob = Descriptor(media_type="text/plain", digest=digest_of(data), size=len(data))
root = Path(sys.argv[1])
lock = lock_root(root)
s = Storage.open(root)
"""
INGEST = """
with s.content.ingest("r", blob) as i:
    i.write(data[i.offset:])
    i.commit()
"""
SNAPSHOT = """
m = s.snapshots.prepare("unpack:1")
open(upper_dir(m) + "/file", "w").write("whole")
s.snapshots.commit("layer", "unpack:1")
"""
REMOVE = """
m = s.snapshots.prepare("container:1")
open(upper_dir(m) + "/file", "w").write("whole")
s.snapshots.remove("container:1")
"""
NAME = """
s.images.put("docker.io/library/x:latest", blob)
"""


def run(root: Path, program: str, failpoint: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program, root],
        env={**os.environ, "PROA_FAILPOINT": failpoint},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == (-signal.SIGKILL if failpoint else 0), done.stderr


def files(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir() or p.is_symlink()} - {"lock"}


def swept(root: Path) -> set[str]:
    """What is left after a collection that takes everything nobody owns."""
    with lock_root(root), Storage.open(root) as s:
        assert s.damaged == []
        s.collect(keep_interrupted_s=0)
        assert s.trash.drain(20)
        for name in os.listdir(root / "snapshots"):
            assert name == "records" or any(i.kind for i in s.snapshots.walk())
    return files(root) - {"index.sqlite"}


@pytest.mark.parametrize(
    ("failpoint", "there"),
    [
        ("ingest.after-write", False),
        ("content.before-rename", False),
        ("content.before-tidy", True),
        ("content.after-rename", True),
    ],
)
def test_ingest(tmp_path, failpoint, there):
    root = tmp_path / "root"
    run(root, INGEST, failpoint)
    with lock_root(root), Storage.open(root) as s:
        found = [b.digest for b in s.content.walk()]
        assert found == ([DIGEST] if there else [])
        if there:
            assert read_blob(s.content, BLOB, 1 << 20) == DATA
        else:
            with pytest.raises(NotFound):
                s.content.info(DIGEST)
    run(root, INGEST, "")
    with lock_root(root), Storage.open(root) as s:
        assert read_blob(s.content, BLOB, 1 << 20) == DATA
    assert swept(root) == set()


@pytest.mark.parametrize(
    ("failpoint", "there"),
    [
        ("snapshot.before-record", False),
        ("snapshot.before-commit", False),
        ("record.before-rename", False),
        ("snapshot.after-commit", True),
    ],
)
def test_snapshot_commit(tmp_path, failpoint, there):
    root = tmp_path / "root"
    run(root, SNAPSHOT, failpoint)
    with lock_root(root), Storage.open(root) as s:
        assert [(i.key, i.kind) for i in s.snapshots.walk()] == ([("layer", "committed")] if there else [])
        if there:
            (lower,) = s.snapshots.lowers("layer")
            assert (Path(lower) / "file").read_text() == "whole"
        else:
            assert s.trash.drain(20)
            assert os.listdir(root / "snapshots") == ["records"]
    if not there:
        run(root, SNAPSHOT, "")
        with lock_root(root), Storage.open(root) as s:
            assert s.snapshots.stat("layer").kind == "committed"
    assert swept(root) == set()


@pytest.mark.parametrize("failpoint", ["snapshot.before-trash"])
def test_snapshot_remove(tmp_path, failpoint):
    root = tmp_path / "root"
    run(root, REMOVE, failpoint)
    with lock_root(root), Storage.open(root) as s:
        assert list(s.snapshots.walk()) == []
    assert swept(root) == set()


@pytest.mark.parametrize("failpoint", ["record.before-rename"])
def test_name(tmp_path, failpoint):
    root = tmp_path / "root"
    run(root, NAME, failpoint)
    with lock_root(root), Storage.open(root) as s:
        assert list(s.images.walk()) == []
    assert swept(root) == set()
    run(root, NAME, "")
    with lock_root(root), Storage.open(root) as s:
        assert [i.name for i in s.images.walk()] == ["docker.io/library/x:latest"]


def test_kill_at_random_moments(tmp_path):
    """A writer that does all of it in a loop is killed again and again; each successor finds a sound store."""
    root = tmp_path / "root"
    program = """
import itertools, random
for n in itertools.count(random.randrange(10**9)):
    with s.leases.hold("work"):
        d = write_blob(s.content, b"%d" % n * 5000, "text/plain")
        s.images.put(f"image-{n % 5}", d)
        key = f"unpack:{n}"
        m = s.snapshots.prepare(key)
        open(upper_dir(m) + "/file", "w").write(str(n))
        s.snapshots.commit(f"layer-{n}", key)
        s.snapshots.prepare(f"container:{n}", f"layer-{n}")
        s.snapshots.remove(f"container:{n}")
    if n % 3 == 0:
        s.collect()
"""
    for turn in range(6):
        process = subprocess.Popen([sys.executable, "-c", PRELUDE + program, root], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 20
        while not (root / "index.dirty").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.15 + 0.07 * turn)
        process.kill()
        assert process.communicate()[1] == b""
        with lock_root(root), Storage.open(root) as s:
            assert s.damaged == []
            for blob in s.content.walk():
                read_blob(s.content, Descriptor(media_type="x", digest=blob.digest, size=blob.size), 1 << 20)
            for image in s.images.walk():
                assert s.content.info(image.descriptor.digest).size == image.descriptor.size
            for info in s.snapshots.walk():
                if info.kind == "committed":
                    (lower,) = s.snapshots.lowers(info.key)
                    assert (Path(lower) / "file").read_text() == info.key.removeprefix("layer-")
    with lock_root(root), Storage.open(root) as s:
        for info in list(s.snapshots.walk()):
            if info.key.startswith("container:"):
                s.snapshots.remove(info.key)
        for image in list(s.images.walk()):
            s.images.delete(image.name)
    assert swept(root) == set()
    assert os.listdir(root / "snapshots") == ["records"]
