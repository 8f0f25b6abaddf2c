"""Commit, save and push compressed as asked for; commits that repeat to the bit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from engines import PrivateEngine
from registries import Registry

pytestmark = pytest.mark.root

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def layer_types(manifest: bytes) -> list[str]:
    return [layer["mediaType"].rpartition(".")[2] for layer in json.loads(manifest)["layers"]]


def test_push_with_a_format(box: PrivateEngine, registry: Registry) -> None:
    for compression, wanted in (("zstd:9", "tar+zstd"), ("gzip:6", "tar+gzip"), ("", "tar+gzip")):
        name = f"{registry.host}/compressed/{compression.replace(':', '') or 'plain'}:1"
        # A file of its own: an image that has been pushed is compressed already.
        box.proa("run", "--name", "changed", "--network", "none", "busybox", "sh", "-c", f"echo '{compression}' > /new")
        box.proa("commit", "changed", name)
        box.proa("rm", "changed")
        box.proa("push", *(["--compression", compression] if compression else []), name)
        manifest, _ = registry.manifest(name.partition("/")[2].rpartition(":")[0], "1")
        assert layer_types(manifest)[-1] == wanted
        box.proa("rmi", name)
        box.proa("pull", name)
        assert box.sh("cat /new", image=name) == compression


def test_save_compressed(box: PrivateEngine, tmp_path: Path) -> None:
    for compression, magic in (("gzip", GZIP), ("zstd:12", ZSTD)):
        archive = tmp_path / "saved"
        box.proa("save", "--compression", compression, "-o", str(archive), "busybox")
        assert archive.read_bytes().startswith(magic)
        box.proa("tag", "busybox", "kept:1")
        assert "busybox:latest" in box.out("load", "-i", str(archive))
        box.proa("rmi", "kept:1")


def test_commit_compressed_and_reproducible(box: PrivateEngine) -> None:
    ids = set()
    for name in ("one", "two"):
        # What they write has other times; nothing is newer than the epoch, which is long ago.
        box.proa(
            "run", "--name", name, "--network", "none", "busybox", "sh", "-c", "echo new > /new; rm /etc/os-release"
        )
    for name in ("one", "two"):
        environment = {"SOURCE_DATE_EPOCH": "1000000000"}
        ids.add(box.out("commit", "--compression", "zstd", name, f"again-{name}:1", env=environment))
    assert len(ids) == 1, ids
    assert box.inspect("again-one:1")["Created"].startswith("2001-09-09T01:46:40")
    assert box.sh("cat /new; test -e /etc/os-release || echo gone", image="again-one:1") == "new\ngone"
    assert b"unknown compression" in box.proa("commit", "--compression", "lzma", "one", check=False).stderr
    box.proa("rm", "one", "two")


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_sparse_giant_takes_no_room(box: PrivateEngine, compression: str, registry: Registry) -> None:
    """Layers have no holes, but neither the blob nor the files take the room that zeros would."""
    script = "busybox truncate -s 600M /big && echo end >> /big"
    box.proa("run", "--name", "sparse", "--network", "none", "busybox", "sh", "-c", script)
    name = f"{registry.host}/sparse/{compression}:1"
    box.proa("commit", "--compression", compression, "sparse", name)
    box.proa("rm", "sparse")
    for directory in ("content", "snapshots"):  # du does not mind what is deleted meanwhile
        done = subprocess.run(["du", "-sm", box.root / directory], capture_output=True, check=False)
        assert int(done.stdout.split()[0]) < 64, done
    assert box.sh("stat -c %s /big; busybox tail -c 4 /big", image=name) == f"{(600 << 20) + 4}\nend"
    # One's own image can be repaired and read again, however well it is packed.
    snapshot = max(box.root.glob("snapshots/*/fs/big"), key=lambda path: path.stat().st_mtime)
    snapshot.write_bytes(b"")
    assert "1 problem found, 1 repaired" in box.out("system", "check", "--repair")
    assert snapshot.stat().st_size == (600 << 20) + 4
    assert box.proa("system", "check").returncode == 0
    box.proa("rmi", name)
