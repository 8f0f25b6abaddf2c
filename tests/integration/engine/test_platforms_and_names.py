"""Images for several platforms, kept whole or by one; names that a configuration file completes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import registries
from engines import PrivateEngine
from oci_images import Image, digest, index_of, tar

pytestmark = pytest.mark.root

MINE, OTHER = {"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64", "variant": "v8"}


def says(architecture: str) -> Image:
    files = (("bin", None), ("bin/sh", Path("/bin/busybox").read_bytes()), ("said", architecture.encode()))
    return Image(tar(*files), architecture=architecture, config={"Cmd": ["sh", "-c", "cat /said"]})


class Whole:
    """An index of two images and an attestation, in a registry."""

    def __init__(self, serve_blobs: Any) -> None:
        self.mine, self.other = says("amd64"), says("arm64")
        attestation = Image(b'{"predicate": 1}', how="none", architecture="unknown")
        attestation.manifest["layers"][0]["mediaType"] = "application/vnd.in-toto+json"
        attestation.root = attestation.add(
            json.dumps(attestation.manifest).encode(), "application/vnd.oci.image.manifest.v1+json"
        )
        raw, blobs = index_of(
            [(self.other, OTHER), (self.mine, MINE), (attestation, {"os": "unknown", "architecture": "unknown"})]
        )
        self.raw, self.digest = raw, digest(raw)
        self.server = serve_blobs(blobs, self.digest, "application/vnd.oci.image.index.v1+json")
        self.reference = self.server.reference
        self.repository = self.reference.rpartition(":")[0]


@pytest.fixture
def whole(serve_blobs: Any) -> Whole:
    return Whole(serve_blobs)


def test_one_platform_is_kept_and_known_by_the_index(box: PrivateEngine, whole: Whole) -> None:
    box.proa("pull", whole.reference)
    found = box.inspect(whole.reference)
    assert found["Architecture"] == "amd64"
    assert found["RepoDigests"] == [f"{whole.repository}@{whole.digest}"]
    for known in (whole.digest, whole.mine.digest):
        assert box.inspect(f"{whole.repository}@{known}")["Id"] == found["Id"]
    assert not any(whole.other.digest in path for path in whole.server.asked)
    refused = box.proa("image", "inspect", "--platform", "linux/arm64", whole.reference, check=False)
    assert (refused.returncode, b"does not match the specified platform" in refused.stderr) == (1, True)


def test_all_platforms(box: PrivateEngine, whole: Whole, registry: registries.Registry) -> None:
    box.proa("pull", "--all-platforms", whole.reference)
    mine, other = (whole.mine.manifest["config"]["digest"], whole.other.manifest["config"]["digest"])
    assert box.inspect(whole.reference)["Id"] == mine
    assert box.inspect(other)["Architecture"] == "arm64"
    shown = json.loads(box.out("image", "inspect", "--platform", "linux/arm64", whole.reference))[0]
    assert (shown["Id"], shown["RepoTags"]) == (other, [whole.reference])
    assert box.out("images", "-q", "--no-trunc", whole.reference) == mine
    run = ("run", "--rm", "--network", "none")
    assert box.out(*run, whole.reference) == "amd64"

    # The other platform's layers are unpacked when they are needed; whether its programs run is the kernel's affair.
    done = box.proa("create", "--name", "foreign", "--platform", "linux/arm64", whole.reference)
    assert b"No emulator for arm64" in done.stderr or Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists()
    assert box.inspect("foreign")["Image"] == other
    refused = box.proa("rmi", whole.reference, check=False)
    assert b"container" in refused.stderr, refused.stderr
    assert box.inspect(whole.reference)["Id"] == mine
    box.proa("rm", "foreign")

    # Pushed it is the same index, byte for byte, with what is no image in it; or one platform of it.
    name = f"{registry.host}/tests/whole:1"
    box.proa("tag", whole.reference, name)
    box.proa("push", name)
    assert registry.manifest("tests/whole", "1")[0] == whole.raw
    one = f"{registry.host}/tests/one:1"
    box.proa("tag", whole.reference, one)
    box.proa("push", "--platform", "linux/arm64", one)
    assert digest(registry.manifest("tests/one", "1")[0]) == whole.other.digest
    missing = box.proa("push", "--platform", "linux/s390x", one, check=False)
    assert (missing.returncode, b"s390x" in missing.stderr) == (1, True)
    assert Path(box.root, "content", "blobs", "sha256", whole.other.digest[7:]).exists()
    box.proa("rmi", whole.reference, name, one)
    assert not Path(box.root, "content", "blobs", "sha256", whole.other.digest[7:]).exists()


def test_an_index_says_more_than_its_images(box: PrivateEngine, serve_blobs: Any) -> None:
    """Old images for arm v6 say arm only, which else means v7."""
    old, new = says("arm"), Image(tar(("said", b"v7")), architecture="arm")
    arm = {"os": "linux", "architecture": "arm"}
    raw, blobs = index_of([(old, {**arm, "variant": "v6"}), (new, {**arm, "variant": "v7"})])
    server = serve_blobs(blobs, digest(raw), "application/vnd.oci.image.index.v1+json")
    box.proa("pull", "--platform", "linux/arm/v6", server.reference)
    assert box.inspect(server.reference)["Id"] == old.id
    remote = box.out("image", "inspect", "--remote", "--platform", "linux/arm/v6", "-f", "{{.Id}}", server.reference)
    assert remote == old.id
    box.proa("pull", "--all-platforms", "--platform", "linux/arm/v6", server.reference)
    for variant, image in (("v5", None), ("v6", old), ("v7", new)):
        found = box.proa("image", "inspect", "--platform", f"linux/arm/{variant}", server.reference, check=False)
        assert (json.loads(found.stdout)[0]["Id"] if found.returncode == 0 else None) == (image and image.id)


def test_one_platform_goes_and_the_others_stay(box: PrivateEngine, whole: Whole) -> None:
    blobs = Path(box.root, "content", "blobs", "sha256")

    def there(image: Image) -> set[bool]:
        return {(blobs / blob["digest"][7:]).exists() for blob in (image.root, *image.manifest["layers"])}

    box.proa("pull", "--all-platforms", whole.reference)
    second = f"{whole.repository}:second"
    box.proa("tag", whole.reference, second)
    assert box.out("rmi", "--platform", "linux/arm64", whole.reference) == f"Deleted: {whole.other.digest}"
    assert (there(whole.mine), there(whole.other)) == ({True}, {True})  # another name keeps it
    assert box.proa("create", "--pull", "never", "--platform", "linux/arm64", whole.reference, check=False).returncode
    box.proa("image", "inspect", "--platform", "linux/arm64", second)
    done = box.docker("image", "rm", "--platform", "linux/arm64", second, check=False)
    if done.returncode:  # a client of before API 1.50
        box.proa("rmi", "--platform", "linux/arm64", second)
    assert (there(whole.mine), there(whole.other)) == ({True}, {False})
    assert box.out("run", "--rm", "--network", "none", whole.reference) == "amd64"
    box.proa("system", "check")
    again = box.proa("rmi", "--platform", "linux/arm64", second, check=False)
    assert (again.returncode, b"is here" in again.stderr) == (1, True)
    box.proa("create", "--name", "user", whole.reference)
    busy = box.proa("rmi", "--platform", "linux/amd64", whole.reference, check=False)
    assert (busy.returncode, b"container" in busy.stderr) == (1, True)
    box.proa("rm", "-f", "user")
    box.proa("pull", "--all-platforms", whole.reference)
    assert there(whole.other) == {True}
    # The last one is the image.
    box.proa("rmi", second)
    box.proa("rmi", "--platform", "linux/amd64", "--platform", "linux/arm64", whole.reference)
    assert (there(whole.mine), there(whole.other)) == ({False}, {False})
    single = box.proa("rmi", "--platform", "linux/amd64", "busybox", check=False)
    assert (single.returncode, b"one platform" in single.stderr) == (1, True)


def test_an_image_for_another_machine(box: PrivateEngine, serve_blobs: Any, registry: registries.Registry) -> None:
    other = says("s390x")
    server = serve_blobs(other.blobs, other.digest, other.root["mediaType"])
    done = box.proa("create", server.reference)
    assert b"does not match the detected host platform (linux/amd64)" in done.stderr
    raw, blobs = index_of([(other, {"os": "linux", "architecture": "s390x"})])
    server = serve_blobs(blobs, digest(raw), "application/vnd.oci.image.index.v1+json")
    refused = box.proa("run", "--rm", server.reference, check=False)
    assert refused.returncode == 125
    said = refused.stderr.decode()
    assert "no matching manifest for linux/amd64" in said
    assert "linux/s390x" in said
    box.proa("pull", "--all-platforms", server.reference)
    assert box.inspect(server.reference)["Architecture"] == "s390x"


def test_asking_for_another_platform_pulls_it(box: PrivateEngine, whole: Whole) -> None:
    box.proa("pull", whole.reference)
    box.proa("create", "--platform", "linux/arm64", whole.reference)
    assert box.inspect(whole.other.manifest["config"]["digest"])["Architecture"] == "arm64"


def test_a_name_goes_before_the_beginning_of_an_id(box: PrivateEngine) -> None:
    identity = box.inspect("busybox")["Id"][7:]
    box.proa("tag", "busybox", identity[:6])
    box.proa("run", "--rm", "--network", "none", "hello")
    box.proa("tag", "hello", identity[:7])
    assert box.inspect(identity[:7])["Id"] == box.inspect("hello")["Id"]
    assert box.inspect(identity[:8])["Id"][7:] == identity
    assert box.inspect(f"sha256:{identity[:8]}")["Id"][7:] == identity
    missing = box.proa("image", "inspect", "0" * 64, check=False)
    assert b"No such image" in missing.stderr


@pytest.fixture
def configured(engine: PrivateEngine, registry: registries.Registry) -> PrivateEngine:
    """An engine whose names without registry mean one on loopback, but for an alias."""
    path = engine.directory / "proa.toml"
    path.write_text(
        f'default-registry = "{registry.host}"\n[short-names]\n"tools/editor" = "{registry.host}/deep/er/editor"\n'
    )
    engine.env["PROA_CONFIG"] = str(path)
    return engine


def test_a_mirror_of_docker_hub(engine: PrivateEngine, registry: registries.Registry, tmp_path: Path) -> None:
    """Programs that name images as on Docker Hub find them in a mirror, and Docker Hub is not asked."""
    path = engine.directory / "proa.toml"
    path.write_text(f'[registry-mirrors]\n"docker.io" = ["{registry.host}"]\n[proxies]\nhttps = "http://127.0.0.1:9"\n')
    engine.env["PROA_CONFIG"] = str(path)
    layout = says("amd64").layout(tmp_path / "layout", "x")
    skopeo = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false"]
    subprocess.run([*skopeo, f"oci:{layout}:x", f"docker://{registry.host}/library/mirrored:1"], check=True)
    assert engine.out("run", "-q", "--rm", "--network", "none", "mirrored:1") == "amd64"
    assert engine.inspect("mirrored:1")["RepoTags"] == ["mirrored:1"]
    facts = json.loads(engine.out("info", "--format", "json"))
    assert facts["RegistryConfig"]["Mirrors"] == [registry.host]
    assert facts["HttpsProxy"] == "http://127.0.0.1:9"
    missing = engine.proa("pull", "elsewhere:1", check=False)
    assert (missing.returncode, b"proxy" in missing.stderr.lower()) == (1, True), missing.stderr


def test_short_names(configured: PrivateEngine, registry: registries.Registry, tmp_path: Path) -> None:
    layout = says("amd64").layout(tmp_path / "layout", "x")
    for repository in ("short/plain", "deep/er/editor"):
        skopeo = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false"]
        subprocess.run([*skopeo, f"oci:{layout}:x", f"docker://{registry.host}/{repository}:1"], check=True)
    assert "Downloaded newer image" in configured.out("pull", "short/plain:1")
    configured.proa("pull", "tools/editor:1")
    names = configured.out("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert sorted(names) == sorted([f"{registry.host}/short/plain:1", f"{registry.host}/deep/er/editor:1"])
    assert configured.inspect("short/plain:1")["Id"] == configured.inspect(names[0])["Id"]
    assert configured.out("run", "--rm", "--network", "none", "tools/editor:1") == "amd64"
    configured.proa("tag", "short/plain:1", "docker.io/library/kept:1")
    assert "docker.io/library/kept:1" in configured.inspect("docker.io/kept:1")["RepoTags"]
    configured.proa("rmi", "docker.io/kept:1", "short/plain:1", "tools/editor:1")
    assert configured.out("images", "-q") == ""
