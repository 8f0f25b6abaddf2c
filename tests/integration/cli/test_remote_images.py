"""Images where they are: a real registry behind a token server, seen with proa, skopeo and the docker command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import engines
import pytest
import registries
from oci_images import Image, digest, index_of, tar
from token_authority import TokenAuthority

import proa

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenAuthority]:
    found = TokenAuthority(tmp_path_factory.mktemp("authority"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def tokened(authority: TokenAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    """A registry that believes the authority's tokens, with an index in team/whole:1."""
    found = registries.Registry(tmp_path_factory.mktemp("tokened"), auth=authority.auth)
    yield found
    found.close()


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    found = registries.Registry(tmp_path_factory.mktemp("open"))
    yield found
    found.close()


def images() -> tuple[Image, Image, bytes, dict[str, bytes]]:
    busybox = ("bin/sh", Path("/bin/busybox").read_bytes())
    mine = Image(tar(("bin", None), busybox), tar(("said", b"amd64")), config={"Cmd": ["sh", "-c", "cat /said"]})
    other = Image(tar(("said", b"arm64")), architecture="arm64")
    raw, blobs = index_of(
        [(mine, {"os": "linux", "architecture": "amd64"}), (other, {"os": "linux", "architecture": "arm64"})]
    )
    return mine, other, raw, blobs


MINE, OTHER, INDEX, BLOBS = images()


def layout(folder: Path) -> str:
    from oci_images import write_layout

    write_layout(
        folder,
        BLOBS,
        [
            {
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "digest": digest(INDEX),
                "size": len(INDEX),
                "annotations": {"org.opencontainers.image.ref.name": "x"},
            }
        ],
    )
    return f"oci:{folder}:x"


def skopeo(*args: str) -> bytes:
    done = subprocess.run(["skopeo", "--insecure-policy", *args], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


CREDS = f"{registries.USER}:{registries.PASSWORD}"


@pytest.fixture(scope="module", autouse=True)
def filled(tokened: registries.Registry, tmp_path_factory: pytest.TempPathFactory) -> None:
    source = layout(tmp_path_factory.mktemp("layout") / "x")
    for name in ("team/whole:1", "team/whole:2", "public/whole:1"):
        # The authority lets nobody push to public/, so it gets there past the registry's door.
        if name.startswith("team/"):
            skopeo(
                "copy",
                "--all",
                "--dest-tls-verify=false",
                "--dest-creds",
                CREDS,
                source,
                f"docker://{tokened.host}/{name}",
            )


def log_in(engine: engines.PrivateEngine, host: str) -> None:
    engine.proa("login", "-u", registries.USER, "--password-stdin", host, stdin=registries.PASSWORD.encode())


@pytest.fixture
def member(shared: engines.PrivateEngine, tokened: registries.Registry) -> Iterator[engines.PrivateEngine]:
    """Logged in at the registry with tokens."""
    log_in(shared, tokened.host)
    yield shared
    shared.proa("logout", tokened.host)


def test_a_login_keeps_a_token_and_not_the_password(
    member: engines.PrivateEngine, tokened: registries.Registry, authority: TokenAuthority
) -> None:
    kept = (member.directory / ".docker" / "config.json").read_text()
    entry = json.loads(kept)["auths"][tokened.host]
    assert entry["identitytoken"] in authority.refresh_tokens
    assert registries.PASSWORD not in kept
    said = member.out("login", tokened.host)
    assert "Authenticating with existing credentials" in said
    assert "Login Succeeded" in said
    authority.asked.clear()
    member.proa("pull", f"{tokened.host}/team/whole:1")
    assert authority.asked[-1][0] == "POST"
    assert authority.scopes()[-1] == "repository:team/whole:pull"
    assert member.out("run", "--rm", "--network", "none", f"{tokened.host}/team/whole:1") == "amd64"
    member.proa("rmi", f"{tokened.host}/team/whole:1")


def test_who_may_not(shared: engines.PrivateEngine, tokened: registries.Registry) -> None:
    done = shared.proa("pull", f"{tokened.host}/team/whole:1", check=False)
    assert done.returncode == 1
    assert b"pull access denied" in done.stderr
    done = shared.proa("login", "-u", "nobody", "--password-stdin", tokened.host, stdin=b"x", check=False)
    assert b"incorrect username or password" in done.stderr


def test_a_push_mounts_from_another_repository(
    member: engines.PrivateEngine, tokened: registries.Registry, authority: TokenAuthority
) -> None:
    name = f"{tokened.host}/team/whole:1"
    member.proa("pull", "--all-platforms", name)
    for tag in ("a", "b"):
        member.proa("tag", name, f"{tokened.host}/team/other:{tag}")
    authority.asked.clear()
    said = member.out("push", "--all-tags", f"{tokened.host}/team/other")
    assert "Mounted from team/whole" in said
    assert "repository:team/whole:pull" in authority.scopes()
    assert said.count("digest: sha256") == 2
    assert member.out("image", "tags", f"{tokened.host}/team/other").split() == ["a", "b"]
    raw = skopeo("inspect", "--raw", "--tls-verify=false", "--creds", CREDS, f"docker://{tokened.host}/team/other:b")
    assert raw == INDEX
    done = member.proa("push", "--all-tags", f"{tokened.host}/team/none", check=False)
    assert b"An image does not exist locally with the tag" in done.stderr
    member.proa("rmi", name, f"{tokened.host}/team/other:a", f"{tokened.host}/team/other:b")

    member.proa("pull", "-a", f"{tokened.host}/team/other")
    tags = member.out("images", "--format", "{{.Tag}}", f"{tokened.host}/team/other").split()
    assert sorted(tags) == ["a", "b"]
    assert member.proa("pull", "-a", f"{tokened.host}/team/other:a", check=False).returncode == 1
    member.proa("rmi", f"{tokened.host}/team/other:a", f"{tokened.host}/team/other:b")


def test_inspecting_without_a_pull(member: engines.PrivateEngine, tokened: registries.Registry) -> None:
    name = f"{tokened.host}/team/whole:1"
    before = member.stored()["blobs"]
    found = json.loads(member.out("image", "inspect", "--remote", name))[0]
    assert (found["Id"], found["Architecture"]) == (MINE.id, "amd64")
    assert found["RepoDigests"] == [f"{tokened.host}/team/whole@{digest(INDEX)}"]
    assert [entry["platform"]["architecture"] for entry in found["Manifests"]] == ["amd64", "arm64"]
    assert found["Size"] == sum(layer["size"] for layer in MINE.manifest["layers"])
    theirs = skopeo("inspect", "--tls-verify=false", "--creds", CREDS, f"docker://{name}")
    assert [layer["digest"] for layer in found["Layers"]] == json.loads(theirs)["Layers"]
    other = member.out("image", "inspect", "--remote", "--platform", "linux/arm64", "-f", "{{.Architecture}}", name)
    assert other == "arm64"
    assert member.proa("image", "inspect", "--remote", "--raw", name).stdout == INDEX
    assert member.proa("image", "inspect", "--remote", f"{name}x", check=False).returncode == 1
    assert member.stored()["blobs"] == before


def test_distribution_as_docker_asks_for_it(
    member: engines.PrivateEngine, open_registry: registries.Registry, tokened: registries.Registry
) -> None:
    member.proa("image", "copy", f"{tokened.host}/team/whole:1", f"{open_registry.host}/seen:1")
    import docker

    client = docker.DockerClient(member.socket, version="1.51")
    try:
        found = client.images.get_registry_data(f"{open_registry.host}/seen:1")
        assert found.id == digest(INDEX)
        assert found.has_platform("linux/arm64")
        assert not found.has_platform("linux/s390x")
        with pytest.raises(docker.errors.NotFound):
            client.images.get_registry_data(f"{open_registry.host}/unseen:1")
    finally:
        client.close()
    shown = member.docker("manifest", "inspect", "--insecure", f"{open_registry.host}/seen:1")
    assert len(json.loads(shown.stdout)["manifests"]) == 2


def test_copy_from_registry_to_registry(
    member: engines.PrivateEngine, tokened: registries.Registry, open_registry: registries.Registry
) -> None:
    source = f"{tokened.host}/team/whole:1"
    before = member.stored()["blobs"]
    said = member.out("image", "copy", source, f"{open_registry.host}/copied/whole:1")
    assert f"Digest: {digest(INDEX)}" in said
    assert open_registry.manifest("copied/whole", "1")[0] == INDEX
    assert member.stored()["blobs"] == before
    out = member.out("image", "copy", "-q", "--platform", "linux/arm64", source, f"{open_registry.host}/copied/one:1")
    assert out == OTHER.digest
    # Within one registry nothing travels.
    said = member.out("image", "copy", f"{open_registry.host}/copied/whole:1", f"{open_registry.host}/again:1")
    assert "Copied" not in said
    assert open_registry.manifest("again", "1")[0] == INDEX
    refused = member.proa("image", "copy", source, f"{tokened.host}/private/whole:1", check=False)
    assert refused.returncode == 1
    with proa.connect(member.socket) as engine:
        assert engine.images.copy(f"{open_registry.host}/again:1", f"{open_registry.host}/sdk:1") == digest(INDEX)
        assert engine.images.tags(f"{open_registry.host}/sdk") == ["1"]


def test_many_tags_and_deleting(member: engines.PrivateEngine, tokened: registries.Registry) -> None:
    name = f"{tokened.host}/team/whole"
    for tag in ("x1", "x2", "x3"):
        member.proa("image", "copy", f"{name}:1", f"{tokened.host}/team/many:{tag}")
    many = f"{tokened.host}/team/many"
    assert member.out("rmi", "--remote", f"{many}:x2") == f"Deleted: {many}:x2"
    assert member.out("image", "tags", many).split() == ["x1", "x3"]
    assert tokened_digest(member, f"{many}:x1") == digest(INDEX)
    done = member.proa("rmi", "--remote", f"{many}:x2", many, check=False)
    assert (done.returncode, done.stderr.count(b"proa:")) == (1, 2), done.stderr
    member.proa("rmi", "--remote", f"{many}@{digest(INDEX)}")
    assert member.proa("image", "inspect", "--remote", f"{many}:x1", check=False).returncode == 1


def tokened_digest(engine: engines.PrivateEngine, name: str) -> str:
    return str(json.loads(engine.out("image", "inspect", "--remote", name))[0]["Descriptor"]["digest"])


def test_a_registry_that_deletes_nothing_keeps_the_tag(
    member: engines.PrivateEngine, tokened: registries.Registry, tmp_path: Path
) -> None:
    keeps = registries.Registry(tmp_path / "keeps", delete=False)
    try:
        name = f"{keeps.host}/kept:1"
        member.proa("image", "copy", f"{tokened.host}/team/whole:1", name)
        done = member.proa("rmi", "--remote", name, check=False)
        assert done.returncode == 1
        assert b"unsupported" in done.stderr.lower()
        assert keeps.manifest("kept", "1")[0] == INDEX
    finally:
        keeps.close()


def test_the_docker_command(
    shared: engines.PrivateEngine, tokened: registries.Registry, authority: TokenAuthority
) -> None:
    """login, push and pull of all tags, and search by Docker's own client; its credentials are proa's, too."""
    host, secret = tokened.host, registries.PASSWORD.encode()
    refused = shared.docker("login", "-u", registries.USER, "--password-stdin", host, stdin=b"wrong", check=False)
    assert b"incorrect username or password" in refused.stderr
    shared.docker("login", "-u", registries.USER, "--password-stdin", host, stdin=secret)
    kept = json.loads((shared.directory / ".docker" / "config.json").read_text())["auths"][host]
    assert kept["identitytoken"] in authority.refresh_tokens
    try:
        for tag in ("1", "2"):
            shared.docker("tag", "busybox", f"{host}/team/by-docker:{tag}")
        shared.docker("push", "--all-tags", f"{host}/team/by-docker")
        shared.docker("rmi", f"{host}/team/by-docker:1", f"{host}/team/by-docker:2")
        said = shared.docker("pull", "--all-tags", f"{host}/team/by-docker").stdout
        assert said.count(b"Status: Downloaded newer image") == 2
        assert shared.out("image", "tags", f"{host}/team/by-docker").split() == ["1", "2"]
        said = shared.docker("search", "--format", "{{.Name}}", f"{host}/by-docker").stdout
        assert said.decode().split() == [f"{host}/team/by-docker"]
        shared.docker("rmi", f"{host}/team/by-docker:1", f"{host}/team/by-docker:2")
        shared.docker("pull", "--platform", "linux/arm64", f"{host}/team/whole:1")
        shared.docker("image", "inspect", f"{host}/team/whole:1")
        shared.docker("rmi", f"{host}/team/whole:1")
    finally:
        shared.docker("logout", host)


def test_search(member: engines.PrivateEngine, tokened: registries.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    member.proa("image", "copy", f"{tokened.host}/team/whole:1", f"{tokened.host}/team/needle:1")
    said = member.out("search", f"{tokened.host}/needle").splitlines()
    assert said[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert [line.split()[0] for line in said[1:]] == [f"{tokened.host}/team/needle"]
    monkeypatch.setenv("DOCKER_CONFIG", str(member.directory / ".docker"))
    with proa.connect(member.socket) as engine:
        assert [found.name for found in engine.images.search(f"{tokened.host}/needle")] == [
            f"{tokened.host}/team/needle"
        ]
    assert member.out("search", "--format", "{{.Name}}", "--filter", "stars=1", f"{tokened.host}/needle") == ""
    assert member.proa("search", "--filter", "nonsense=1", f"{tokened.host}/needle", check=False).returncode == 1
    assert member.proa("search", "--limit", "1000", f"{tokened.host}/needle", check=False).returncode == 1
