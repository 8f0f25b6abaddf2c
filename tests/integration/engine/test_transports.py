"""Images in directories and files: OCI layouts, skopeo's `dir:`, root file systems; read and written as others do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from engines import PrivateEngine

import proa
from proa.client.layouts import parse_transport

pytestmark = [pytest.mark.root, pytest.mark.peers]


def run(*command: str | Path) -> str:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def layout(box: PrivateEngine, tmp_path: Path) -> Path:
    """A layout with two images of different contents, `one` and `two`."""
    for name in ("one", "two"):
        box.proa("run", "--name", name, "--network", "none", "busybox", "sh", "-c", f"echo {name} >/name")
        box.proa("commit", name, f"from/{name}:1")
        box.proa("save", "-o", f"oci:{tmp_path}/layout:{name}", f"from/{name}:1")
        box.proa("rmi", "-f", f"from/{name}:1")
        box.proa("rm", name)
    return tmp_path / "layout"


def cat(engine: PrivateEngine, image: str) -> str:
    return engine.out("run", "--rm", "--network", "none", image, "cat", "/name")


def test_run_from_a_layout(box: PrivateEngine, layout: Path) -> None:
    assert [cat(box, f"oci:{layout}:{tag}") for tag in ("one", "two", "one")] == ["one", "two", "one"]
    several = box.proa("run", "--rm", f"oci:{layout}", "true", check=False)
    assert several.returncode != 0
    assert b"has 2 images: choose one" in several.stderr
    none = box.proa("run", "--rm", f"oci:{layout}:three", "true", check=False)
    assert b"there is no image 'three'" in none.stderr
    assert b"no such file" in box.proa("run", "--rm", f"oci:{layout}/nowhere:x", "true", check=False).stderr
    created = box.out("create", "--network", "none", f"oci:{layout}:two", "cat", "/name")
    assert box.out("start", "-a", created) == "two"
    assert box.out("pull", f"oci:{layout}:one").startswith("sha256:")


def test_others_read_what_we_write(box: PrivateEngine, layout: Path, tmp_path: Path) -> None:
    assert run("umoci", "list", "--layout", layout).split() == ["one", "two"]
    run("umoci", "unpack", "--image", f"{layout}:one", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/name").read_text() == "one\n"
    run("skopeo", "copy", "-q", f"oci:{layout}:two", f"dir:{tmp_path}/flat")
    assert cat(box, f"dir:{tmp_path}/flat") == "two"
    ours = json.loads(run("skopeo", "inspect", "--config", f"oci:{layout}:one"))
    with proa.connect(box.socket) as engine:
        (image,) = engine.images.load(tmp_path / "flat")
        assert image.raw["RootFS"]["Layers"][:-1] == ours["rootfs"]["diff_ids"][:-1]
        assert len(engine.images.load(layout)) == 2


def test_we_read_what_others_write(box: PrivateEngine, busybox_tar: Path, tmp_path: Path) -> None:
    layout = tmp_path / "umoci"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:new")
    run("umoci", "raw", "add-layer", "--image", f"{layout}:new", busybox_tar)
    assert box.out("run", "--rm", "--network", "none", f"oci:{layout}:new", "echo", "hello") == "hello"
    for transport in ("oci-archive", "docker-archive"):
        archive = tmp_path / f"{transport}.tar"
        run("skopeo", "copy", "-q", f"oci:{layout}:new", f"{transport}:{archive}:localhost/sko/peo:1")
        assert box.out("run", "--rm", "--network", "none", f"{transport}:{archive}", "echo", transport) == transport
        box.proa("run", "--rm", "--network", "none", f"{transport}:{archive}:localhost/sko/peo:1", "true")
        wrong = box.proa("run", "--rm", f"{transport}:{archive}:other", "true", check=False)
        assert wrong.returncode != 0


def test_a_root_file_system_goes_in_and_out(box: PrivateEngine, tmp_path: Path) -> None:
    box.proa("run", "--name", "source", "--network", "none", "busybox", "sh", "-c", "rm /etc/group; chown 7:8 /home")
    box.proa("commit", "source", "files:1")
    out = tmp_path / "out"
    out.mkdir()
    box.proa("save", "--format", "rootfs", "-o", str(out), "files:1")
    os.link(out / "bin/busybox", out / "bin/linked")
    os.mknod(out / "dev/zero", 0o20666, os.makedev(1, 5))
    os.setxattr(out / "etc/passwd", "user.mark", b"\xff\x00x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(out / "socket"))
    script = "test -e /etc/group || echo gone; stat -c %u:%g /home; stat -c %h /bin/linked; cat /etc/passwd >/dev/null"
    assert box.out("run", "--rm", "--network", "none", f"dir:{out}", "sh", "-c", script).split() == ["gone", "7:8", "2"]
    box.proa("run", "--rm", "--network", "none", f"dir:{out}", "true")
    assert len(box.out("images", "-q", "--filter", "dangling=true").split()) == 1  # the same tree is the same image
    box.proa("import", str(out), "again:1")
    again = tmp_path / "again"
    again.mkdir()
    box.proa("save", "--format", "rootfs", "-o", str(again), "again:1")
    os.unlink(out / "socket")
    assert run("diff", "-r", "--no-dereference", "-x", "zero", out, again) == ""
    assert os.getxattr(again / "etc/passwd", "user.mark") == b"\xff\x00x"
    assert (again / "dev/zero").stat().st_rdev == os.makedev(1, 5)
    assert (again / "bin/linked").stat().st_ino == (again / "bin/busybox").stat().st_ino
    occupied = box.proa("save", "--format", "rootfs", "-o", str(again), "again:1", check=False)
    assert b"is not empty" in occupied.stderr
    tar = box.proa("save", "--format", "rootfs", "again:1").stdout
    assert box.out("import", "-", "third:1", stdin=tar).startswith("sha256:")
    layers = [box.inspect(name)["RootFS"]["Layers"] for name in ("again:1", "third:1")]
    assert len(layers[0]) == len(layers[1]) == 1


def test_damaged_layouts_are_refused(box: PrivateEngine, layout: Path) -> None:
    index = json.loads((layout / "index.json").read_text())
    before = box.out("images", "-aq")
    manifest = layout / "blobs/sha256" / index["manifests"][0]["digest"].removeprefix("sha256:")
    raw = manifest.read_bytes()
    manifest.write_bytes(raw.replace(b'"size":', b'"siz3":', 1))
    assert box.proa("load", "-i", str(layout), check=False).returncode == 1
    for digest in ("sha256:../../../../etc/passwd", "sha256:" + "A" * 64, 7):
        index["manifests"][0]["digest"] = digest
        (layout / "index.json").write_text(json.dumps(index))
        done = box.proa("load", "-i", str(layout), check=False)
        assert done.returncode == 1
        assert b"a descriptor has the digest" in done.stderr
    (layout / "index.json").write_text("[]")
    assert b"no OCI image layout" in box.proa("load", "-i", str(layout), check=False).stderr
    (layout / "index.json").unlink()
    assert box.proa("load", "-i", str(layout), check=False).returncode == 1
    assert box.out("images", "-aq") == before


def test_saving_to_a_layout_keeps_what_is_there(box: PrivateEngine, layout: Path) -> None:
    before = json.loads((layout / "index.json").read_text())["manifests"]
    box.proa("save", "--format", "oci-dir", "-o", str(layout), "busybox")
    box.proa("save", "-o", f"oci:{layout}:two", "busybox")
    names = {
        m["annotations"]["org.opencontainers.image.ref.name"]: m["digest"]
        for m in json.loads((layout / "index.json").read_text())["manifests"]
    }
    assert set(names) == {"one", "two", "docker.io/library/busybox:latest"}
    assert names["one"] == before[0]["digest"]
    assert names["two"] == names["docker.io/library/busybox:latest"]
    assert not list(layout.rglob(".tmp*"))


def test_what_is_a_transport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_transport("oci:latest") is None  # the image `oci`
    assert parse_transport("busybox:1") is None
    assert parse_transport("docker.io/oci:1") is None
    assert parse_transport("oci:") is None
    assert parse_transport("oci:a:b") == ("oci", "a", "b")
    assert parse_transport("oci:./a") == ("oci", "./a", "")
    assert parse_transport("dir:/a:b") == ("dir", "/a:b", "")
    (tmp_path / "latest").mkdir()
    assert parse_transport("oci:latest") == ("oci", "latest", "")
    (tmp_path / "with:colon").mkdir()
    assert parse_transport("oci:with:colon") == ("oci", "with:colon", "")
