"""Images in archives: what proa saves others load, what others save proa loads, and trees become images."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from engines import PrivateEngine
from oci_images import Image, tar
from peers import Dockerd, Podman

pytestmark = pytest.mark.root

BUSYBOX = Path("/bin/busybox")


@pytest.fixture
def changed(box: PrivateEngine) -> str:
    """An image of two layers, the upper with a deletion, a hard link, a setuid file and a capability."""
    script = "rm /etc/os-release; echo new > /etc/new; ln /etc/new /etc/linked; cp /bin/busybox /su; chmod 4755 /su"
    box.proa("run", "--network", "none", "--name", "changing", "busybox", "sh", "-c", script)
    box.proa("commit", "--change", 'CMD ["cat", "/etc/linked"]', "--change", "ENV KEPT=yes", "changing", "changed:1")
    box.proa("rm", "changing")
    return "changed:1"


CHECK = "ls /etc/os-release 2>/dev/null; cat /etc/linked; stat -c '%a %h' /su /etc/new; echo $KEPT"
CHECKED = "new\n4755 1\n644 2\nyes"


@pytest.mark.peers
def test_to_podman_and_back(box: PrivateEngine, changed: str, tmp_path: Path) -> None:
    podman = Podman(tmp_path / "podman")
    layers = box.inspect(changed)["RootFS"]["Layers"]
    assert len(layers) == 2
    archive = tmp_path / "ours.tar"
    box.proa("save", "-o", str(archive), changed)
    podman.run("load", "-i", str(archive))
    assert podman.layers("docker.io/library/changed:1") == layers

    for kind in ("docker-archive", "oci-archive"):
        theirs = tmp_path / f"{kind}.tar"
        podman.run("save", "--format", kind, "-o", str(theirs), "docker.io/library/changed:1")
        box.proa("rmi", changed)
        said = box.out("load", "-i", str(theirs))
        assert "changed:1" in said
        assert box.inspect(changed)["RootFS"]["Layers"] == layers
        assert box.inspect(changed)["Config"]["Cmd"] == ["cat", "/etc/linked"]
        assert box.sh(CHECK, image=changed) == CHECKED
    podman.close()


@pytest.mark.peers
def test_to_dockerd_and_back(box: PrivateEngine, changed: str, tmp_path: Path) -> None:
    dockerd = Dockerd(tmp_path)
    try:
        ours = box.inspect(changed)
        dockerd.run("load", stdin=box.proa("save", changed, "busybox").stdout)
        assert dockerd.layers("changed:1") == ours["RootFS"]["Layers"]
        assert dockerd.layers("busybox:latest") == ours["RootFS"]["Layers"][:1]
        assert dockerd.inspect("changed:1")["Id"] == ours["Id"]

        dockerd.run("tag", "changed:1", "returned:2")
        said = box.proa("load", "-q", stdin=dockerd.run("save", "returned:2")).stdout
        assert b"returned:2" in said
        assert box.inspect("returned:2")["Id"] == ours["Id"]
        assert box.sh(CHECK, image="returned:2") == CHECKED
        # A tree docker exports from a created container is the one proa imports.
        dockerd.run("create", "--network", "none", "--name", "tree", "changed:1")
        box.proa("import", "-", "tree:1", stdin=dockerd.run("export", "tree"))
        assert box.sh("cat /etc/linked", image="tree:1") == "new"
    finally:
        dockerd.close()


def test_what_save_writes_is_both_an_oci_layout_and_a_docker_archive(box: PrivateEngine, changed: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(box.proa("save", changed).stdout)) as archive:
        names = archive.getnames()
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
        assert "oci-layout" in names
    assert manifest[0]["RepoTags"] == ["changed:1"]
    assert all(layer in names for layer in manifest[0]["Layers"])
    assert len(index["manifests"]) == 1
    assert box.proa("save", changed).stdout == box.proa("save", changed).stdout


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
def test_oci_archives_of_every_compression(box: PrivateEngine, how: str) -> None:
    image = Image(tar(("bin", None), ("bin/sh", BUSYBOX.read_bytes()), ("said", how.encode())), how=how)
    box.proa("load", stdin=image.archive("docker.io/tests/archived:1"))
    assert box.inspect("tests/archived:1")["RootFS"]["Layers"] == image.diff_ids
    assert box.sh("cat /said", image="tests/archived:1") == how


def test_an_archive_may_be_compressed(box: PrivateEngine, tmp_path: Path) -> None:
    image = Image(tar(("bin", None), ("bin/sh", BUSYBOX.read_bytes())))
    archive = image.archive("docker.io/tests/packed:1")
    for packed in (
        gzip.compress(archive, 1),
        subprocess.run(["zstd", "-q"], input=archive, capture_output=True).stdout,
    ):
        box.proa("load", stdin=packed)
        assert box.sh("echo loaded", image="tests/packed:1") == "loaded"
        box.proa("rmi", "tests/packed:1")


@pytest.mark.parametrize("command", [["cat"], ["gzip", "-1"], ["zstd", "-q"]])
def test_import_from_stdin(box: PrivateEngine, busybox_tar: Path, command: list[str]) -> None:
    data = subprocess.run(command, input=busybox_tar.read_bytes(), capture_output=True, check=True).stdout
    changes = ("--change", 'ENTRYPOINT ["/bin/sh", "-c"]', "--change", "ENV A=1 B='2 3'", "--change", "WORKDIR /usr")
    said = box.out("import", *changes, "--message", "from a pipe", "-", "imported:1", stdin=data)
    image = box.inspect("imported:1")
    assert said == image["Id"]
    assert image["RootFS"]["Layers"] == box.inspect("busybox")["RootFS"]["Layers"]
    assert box.out("run", "--rm", "--network", "none", "imported:1", "pwd; echo $A-$B") == "/usr\n1-2 3"
    assert "from a pipe" in box.out("history", "--format", "{{.Comment}}", "imported:1")


def test_import_of_a_compressed_file(box: PrivateEngine, busybox_tar: Path, tmp_path: Path) -> None:
    path = tmp_path / "root.tar.gz"
    path.write_bytes(gzip.compress(busybox_tar.read_bytes(), 1))
    box.proa("import", str(path), "fromfile")
    assert box.sh("echo it runs", image="fromfile:latest") == "it runs"


def test_genuine_alpine(box: PrivateEngine, alpine_tar: Path) -> None:
    box.proa("import", "--change", 'CMD ["/bin/sh"]', str(alpine_tar), "alpine:3.23")
    assert box.out("run", "--rm", "--network", "none", "alpine:3.23", "apk", "--version").startswith("apk-tools 3.")
    assert "Alpine Linux" in box.sh("cat /etc/os-release", image="alpine:3.23")
    # Its musl, links and setuid files survive save, remove, load.
    archive = box.proa("save", "alpine:3.23").stdout
    before = box.sh("apk --no-network info | sort; ls -l /bin | md5sum", image="alpine:3.23")
    box.proa("rmi", "alpine:3.23")
    box.proa("load", stdin=archive)
    assert box.sh("apk --no-network info | sort; ls -l /bin | md5sum", image="alpine:3.23") == before


def test_save_of_what_is_not_there(box: PrivateEngine) -> None:
    failed: Any = box.proa("save", "nosuch", check=False)
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert failed.stderr.startswith(b"proa: No such image: nosuch:latest\n")
