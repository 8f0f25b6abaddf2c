"""Manifest lists and OCI artifacts: made here, sent to a real registry, read by others and back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import registries
from engines import PrivateEngine

import proa
from proa.errors import Conflict, Invalid, NotFound

pytestmark = [pytest.mark.root, pytest.mark.peers]


def skopeo(*words: str) -> str:
    return subprocess.run(["skopeo", *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def client(box: PrivateEngine) -> Iterator[proa.Client]:
    with proa.connect(box.socket) as found:
        yield found
        for artifact in found.artifacts.list():
            found.artifacts.remove(artifact.name)


@pytest.fixture
def host(registry: registries.Registry) -> str:
    return registry.host


def other_platform(box: PrivateEngine, tar: Path, name: str, platform: str) -> None:
    box.proa("import", "--platform", platform, "-m", platform, str(tar), name)


def test_a_list_is_made_pushed_and_pulled(
    box: PrivateEngine, client: proa.Client, host: str, busybox_tar: Path
) -> None:
    arm = f"{host}/lists/part:arm"
    other_platform(box, busybox_tar, arm, "linux/arm64/v8")
    name = f"{host}/lists/all:1"
    assert box.out("manifest", "create", name, "busybox", arm) == f"Created manifest list {name}"
    index = json.loads(box.out("manifest", "inspect", name))
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert [m["platform"] for m in index["manifests"]] == [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64", "variant": "v8"},
    ]
    box.proa("manifest", "annotate", name, arm, "--os-version", "6.1", "--os-features", "a,b", "--annotation", "k=v")
    digest = box.out("manifest", "push", name)
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    entries = json.loads(raw)["manifests"]
    assert entries[1]["platform"]["os.features"] == ["a", "b"]
    assert entries[1]["annotations"] == {"k": "v"}
    assert json.loads(raw) == client.manifests.inspect(name)
    config = skopeo("inspect", "--config", "--override-arch", "arm64", "--tls-verify=false", f"docker://{name}")
    assert json.loads(config)["architecture"] == "arm64"
    box.proa("manifest", "rm", name)
    assert box.proa("manifest", "rm", name, check=False).returncode == 1
    assert json.loads(box.out("manifest", "inspect", name)) == json.loads(raw)  # from the registry
    box.proa("pull", name)
    assert box.out("run", "--rm", "--network", "none", name, "echo", "amd64") == "amd64"
    assert digest.startswith("sha256:")
    assert box.proa("system", "check", "--quick").returncode == 0


def test_lists_are_amended_and_refuse_what_they_are_not(
    box: PrivateEngine, client: proa.Client, busybox_tar: Path, host: str
) -> None:
    first = client.manifests.create("lists/mine:1")
    with pytest.raises(Conflict):
        client.manifests.create("lists/mine:1", ["busybox"])
    with pytest.raises(Conflict):
        client.manifests.create("busybox")
    assert client.manifests.create("lists/mine:1", ["busybox"], amend=True) != first
    other_platform(box, busybox_tar, "lists/arm:1", "linux/arm")
    client.manifests.add("lists/mine:1", ["lists/arm:1", "busybox"])
    assert len(client.manifests.inspect("lists/mine:1")["manifests"]) == 2
    client.manifests.create("lists/copy:1", ["lists/mine:1"])
    assert len(client.manifests.inspect("lists/copy:1")["manifests"]) == 2
    client.manifests.annotate("lists/mine:1", "lists/arm:1", architecture="arm", variant="v6")
    client.manifests.remove_entry("lists/mine:1", "busybox")
    (left,) = client.manifests.inspect("lists/mine:1")["manifests"]
    assert left["platform"] == {"os": "linux", "architecture": "arm", "variant": "v6"}
    for wrong in ("busybox", "sha256:" + "0" * 64):
        with pytest.raises(NotFound):
            client.manifests.annotate("lists/mine:1", wrong, variant="v7")
    with pytest.raises(Invalid):
        client.manifests.inspect("busybox")
    with pytest.raises(NotFound):
        client.manifests.inspect("lists/none:1")
    target = f"{host}/lists/elsewhere:1"
    digest = client.manifests.push("lists/copy:1", target)
    assert json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{target}"))["manifests"]
    assert target not in box.out("images", "--format", "{{.Repository}}:{{.Tag}}")
    assert digest.startswith("sha256:")
    for name in ("lists/mine:1", "lists/copy:1"):
        client.manifests.remove(name)


def test_artifacts_travel(box: PrivateEngine, client: proa.Client, host: str, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "model.bin").write_bytes(data)
    (tmp_path / "notes.txt").write_text("notes\n")
    name = f"{host}/things/model:1"
    digest = box.out(
        *("artifact", "add", "--type", "application/x.model", "--annotation", "a=b", name),
        *(str(tmp_path / "model.bin"), str(tmp_path / "notes.txt")),
    )
    (row,) = [line for line in box.out("artifact", "ls").splitlines() if line.startswith(name)]
    assert row.split()[1:] == ["application/x.model", digest[7:19], "2", "300kB"]
    assert name not in box.out("images", "--format", "{{.Repository}}:{{.Tag}}")
    assert box.out("artifact", "push", name) == digest
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert json.loads(raw)["artifactType"] == "application/x.model"
    assert raw == box.out("artifact", "inspect", "--raw", name)
    box.proa("artifact", "rm", name)
    with pytest.raises(NotFound):
        client.artifacts.get(name)
    assert box.out("artifact", "pull", name) == digest
    out = tmp_path / "out"
    out.mkdir()
    box.proa("artifact", "extract", name, str(out))
    assert (out / "model.bin").read_bytes() == data
    assert (out / "notes.txt").read_text() == "notes\n"
    assert box.out("artifact", "extract", "--title", "notes.txt", name) == "notes"
    assert box.proa("artifact", "extract", name, check=False).returncode == 1  # which of two?
    assert [f["Title"] for f in json.loads(box.out("artifact", "inspect", name))["Files"]] == [
        "model.bin",
        "notes.txt",
    ]
    # Collections and checks know artifacts; images and artifacts are not taken for each other.
    box.proa("image", "prune", "-f")
    assert b"".join(client.artifacts.read(name, "model.bin")) == data
    assert box.proa("system", "check").returncode == 0
    assert b"no container image" in box.proa("pull", name, check=False).stderr
    assert box.proa("run", "--rm", name, check=False).returncode == 125
    for refused in (client.artifacts.get, client.artifacts.remove, client.artifacts.push):
        with pytest.raises(Invalid):
            refused("busybox")


def test_artifacts_of_others(box: PrivateEngine, client: proa.Client, host: str, tmp_path: Path) -> None:
    """A file whose title leads out of the directory is written under its last part only."""
    client.artifacts.add("things/mine:1", b"one", title="one")
    with pytest.raises(Conflict):
        client.artifacts.add("things/mine:1", b"two", title="two")
    with pytest.raises(Conflict):
        client.artifacts.add("things/mine:1", b"two", title="one", append=True)
    for bad in ("", "..", "a/b", "a\nb"):
        with pytest.raises(Invalid):
            client.artifacts.add("things/mine:1", b"x", title=bad, append=True)
    blob = subprocess.run(["sha256sum"], input=b"payload", capture_output=True, check=True).stdout[:64].decode()
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "version").write_text("Directory Transport Version: 1.1\n")
    empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    (flat / empty).write_text("{}")
    (flat / blob).write_bytes(b"payload")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/x.evil",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": f"sha256:{empty}", "size": 2},
        "layers": [
            {
                "mediaType": "text/plain",
                "digest": f"sha256:{blob}",
                "size": 7,
                "annotations": {"org.opencontainers.image.title": "../../escaped"},
            }
        ],
    }
    (flat / "manifest.json").write_text(json.dumps(manifest))
    name = f"{host}/things/evil:1"
    skopeo("copy", "-q", "--dest-tls-verify=false", f"dir:{flat}", f"docker://{name}")
    client.artifacts.pull(name)
    out = tmp_path / "a" / "b"
    out.mkdir(parents=True)
    box.proa("artifact", "extract", name, str(out))
    assert os.listdir(out) == ["escaped"]
    assert not (tmp_path / "escaped").exists()
