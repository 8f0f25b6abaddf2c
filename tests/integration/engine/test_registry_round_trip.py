"""Images to a registry and back: with the engine alone, and with skopeo between."""

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


def skopeo(*args: str) -> bytes:
    """Run skopeo without a policy of the machine's."""
    done = subprocess.run(["skopeo", "--insecure-policy", *args], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_debian_goes_to_a_registry_and_comes_back(
    engine: PrivateEngine, registry: registries.Registry, debian_tar: Path, tmp_path: Path
) -> None:
    name = f"{registry.host}/proa/debian:12"
    engine.proa("import", "--change", 'CMD ["bash"]', str(debian_tar), name)
    engine.proa("push", "-q", name)
    raw, kind = registry.manifest("proa/debian", "12")
    image_id = engine.inspect(name)["Id"]

    engine.proa("rmi", name)
    engine.proa("system", "prune", "-a", "-f")
    empty = engine.stored()
    assert (empty["blobs"] - {"sha256"}, empty["images"]) == (set(), set())

    engine.proa("pull", name)
    assert engine.inspect(name)["Id"] == image_id
    assert f"{registry.host}/proa/debian@{digest(raw)}" in engine.inspect(name)["RepoDigests"]
    said = engine.sh("cat /etc/os-release; cat /etc/debian_version; dpkg-query -f . -W dpkg", image=name)
    assert 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"' in said

    # skopeo out of the registry and in again under another name, then through our own pull and push: the same bytes.
    layout = f"oci:{tmp_path}/layout:x"
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", layout)
    skopeo("copy", "--dest-tls-verify=false", layout, f"docker://{registry.host}/proa/copied:1")
    copied, copied_kind = registry.manifest("proa/copied", "1")
    assert (digest(copied), copied_kind) == (digest(raw), kind)
    engine.proa("pull", f"{registry.host}/proa/copied:1")
    engine.proa("tag", f"{registry.host}/proa/copied:1", f"{registry.host}/proa/again:1")
    engine.proa("push", f"{registry.host}/proa/again:1")
    assert registry.manifest("proa/again", "1")[0] == raw


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
def test_layers_of_every_compression(
    box: PrivateEngine, registry: registries.Registry, tmp_path: Path, how: str
) -> None:
    busybox = tar(("bin", None), ("bin/sh", Path("/bin/busybox").read_bytes()))
    image = Image(busybox, tar(("said", b"from the %s layer\n" % how.encode())), how=how)
    name = f"{registry.host}/tests/{how}:1"
    layout = image.layout(tmp_path / "layout", "x")
    skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{layout}:x", f"docker://{name}")
    box.proa("pull", name)
    assert box.out("run", "--rm", "--network", "none", name, "sh", "-c", "cat /said") == f"from the {how} layer"
    assert box.inspect(name)["RootFS"]["Layers"] == image.diff_ids
    assert box.inspect(name)["Id"] in (image.id, image.digest)
    # Pushed elsewhere it is the same manifest, byte for byte.
    box.proa("tag", name, f"{registry.host}/tests/{how}-2:1")
    box.proa("push", f"{registry.host}/tests/{how}-2:1")
    assert digest(registry.manifest(f"tests/{how}-2", "1")[0]) == image.digest


def test_docker_schema_2(box: PrivateEngine, registry: registries.Registry, tmp_path: Path) -> None:
    image = Image(tar(("file", b"x")))
    layout = image.layout(tmp_path / "layout", "x")
    name = f"{registry.host}/tests/schema2:1"
    skopeo("copy", "--format", "v2s2", "--dest-tls-verify=false", f"oci:{layout}:x", f"docker://{name}")
    raw, kind = registry.manifest("tests/schema2", "1")
    assert kind == "application/vnd.docker.distribution.manifest.v2+json"
    box.proa("pull", name)
    assert box.inspect(name)["RootFS"]["Layers"] == image.diff_ids
    box.proa("tag", name, f"{registry.host}/tests/schema2-2:1")
    box.proa("push", f"{registry.host}/tests/schema2-2:1")
    assert registry.manifest("tests/schema2-2", "1") == (raw, kind)


def _says(text: str, architecture: str) -> Image:
    return Image(
        tar(("bin", None), ("bin/sh", Path("/bin/busybox").read_bytes()), ("said", text.encode())),
        architecture=architecture,
        config={"Cmd": ["sh", "-c", "cat /said"]},
    )


def test_an_index_gives_the_image_for_this_machine(box: PrivateEngine, serve_blobs: Any) -> None:
    mine, other = _says("amd64", "amd64"), _says("arm64", "arm64")
    raw, blobs = index_of(
        [
            (other, {"os": "linux", "architecture": "arm64", "variant": "v8"}),
            (mine, {"os": "linux", "architecture": "amd64"}),
        ]
    )
    server = serve_blobs(blobs, digest(raw), "application/vnd.oci.image.index.v1+json")
    assert box.out("run", "-q", "--rm", "--network", "none", server.reference) == "amd64"
    assert box.inspect(server.reference)["Architecture"] == "amd64"
    config_of_other = other.manifest["config"]["digest"]
    assert not any(config_of_other in path for path in server.asked)

    box.proa("pull", "-q", "--platform", "linux/arm64", server.reference)
    assert box.inspect(server.reference)["Architecture"] == "arm64"
    failed = box.proa("pull", "--platform", "linux/s390x", server.reference, check=False)
    assert failed.returncode == 1
    assert b"linux/s390x" in failed.stderr


def test_the_pull_by_digest(box: PrivateEngine, registry: registries.Registry, tmp_path: Path) -> None:
    image = Image(tar(("file", b"by digest")))
    name = f"{registry.host}/tests/digests"
    skopeo("copy", "--dest-tls-verify=false", f"oci:{image.layout(tmp_path / 'layout', 'x')}:x", f"docker://{name}:1")
    box.proa("pull", f"{name}@{image.digest}")
    assert box.inspect(f"{name}@{image.digest}")["RepoDigests"] == [f"{name}@{image.digest}"]


@pytest.fixture(scope="module")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Any:
    found = registries.Registry(tmp_path_factory.mktemp("closed"), login=True)
    yield found
    found.close()


def test_a_registry_that_wants_a_login(engine: PrivateEngine, closed_registry: registries.Registry) -> None:
    host = closed_registry.host
    name = f"{host}/tests/secret:1"
    engine.proa("run", "--rm", "--network", "none", "hello")
    engine.proa("tag", "hello", name)
    refused = engine.proa("push", name, check=False)
    assert (refused.returncode, refused.stderr.count(b"\n") <= 3) == (1, True), refused.stderr
    wrong = engine.proa("login", "-u", registries.USER, "--password-stdin", host, stdin=b"wrong", check=False)
    assert wrong.returncode == 1
    assert b"unauthorized" in wrong.stderr.lower(), wrong.stderr
    assert not (engine.directory / ".docker" / "config.json").exists()

    said = engine.out("login", "-u", registries.USER, "--password-stdin", host, stdin=registries.PASSWORD.encode())
    assert "Login Succeeded" in said
    engine.proa("push", name)
    engine.proa("rmi", name)
    engine.proa("pull", name)
    engine.proa("logout", host)
    engine.proa("rmi", name)
    assert engine.proa("pull", name, check=False).returncode == 1
    assert json.loads((engine.directory / ".docker" / "config.json").read_text()).get("auths", {}) == {}
