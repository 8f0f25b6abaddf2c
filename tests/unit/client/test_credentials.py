from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from proa.client.credentials import auth_header, credentials_for, forget, headers_of_places, store
from proa.client.names import DOCKER_HUB, registry_of, split_tag
from proa.errors import Invalid


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker" / "config.json"


@pytest.mark.parametrize(
    ("name", "registry"),
    [
        ("debian", DOCKER_HUB),
        ("library/debian:12", DOCKER_HUB),
        ("docker.io/library/debian", DOCKER_HUB),
        ("localhost/x", "localhost"),
        ("localhost:5000/x", "localhost:5000"),
        ("reg.example/a/b@sha256:00", "reg.example"),
    ],
)
def test_registries_of_names(name: str, registry: str) -> None:
    assert registry_of(name) == registry


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a", ("a", "")),
        ("a:1", ("a", "1")),
        ("h:5000/a", ("h:5000/a", "")),
        ("h:5000/a:1", ("h:5000/a", "1")),
        ("a@sha256:ff", ("a", "sha256:ff")),
    ],
)
def test_tags_of_names(name: str, parts: tuple[str, str]) -> None:
    assert split_tag(name) == parts


def test_kept_credentials_are_found_again_and_private(config: Path) -> None:
    assert credentials_for("reg:5000") == {}
    store("reg:5000", "user", "pass:word")
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert credentials_for("reg:5000") == {"username": "user", "password": "pass:word", "serveraddress": "reg:5000"}
    name, value = auth_header("reg:5000/image:1")
    assert name == "X-Registry-Auth"
    assert json.loads(base64.urlsafe_b64decode(value))["username"] == "user"
    assert forget("reg:5000")
    assert not forget("reg:5000")
    assert credentials_for("reg:5000") == {}


def test_an_identity_token_goes_before_a_password() -> None:
    store("reg", "user", "secret", "the-token")
    assert credentials_for("reg") == {"serveraddress": "reg", "identitytoken": "the-token"}


def test_other_settings_survive(config: Path) -> None:
    config.parent.mkdir()
    config.write_text('{"detachKeys": "ctrl-x", "auths": {"https://reg": {"auth": "dTpw"}}}')
    assert credentials_for("reg")["username"] == "u"
    store("other", "a", "b")
    assert json.loads(config.read_text())["detachKeys"] == "ctrl-x"


def test_all_that_is_known_of_some_repositories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One entry a registry, and one of its own where a repository has others; nothing of registries not asked about."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    def auth(user: str) -> dict[str, str]:
        return {"auth": base64.b64encode(f"{user}:x".encode()).decode()}

    auths = {"reg:1": auth("all"), "reg:1/team": auth("team"), "other": auth("other"), DOCKER_HUB: auth("hub")}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    repositories = ["reg:1/one", "reg:1/team/app", "docker.io/library/busybox", "no.login/x"]
    ((header, value),) = headers_of_places(repositories)
    assert header == "X-Registry-Config"
    places = json.loads(base64.urlsafe_b64decode(value))
    assert {place: found["username"] for place, found in places.items()} == {
        "reg:1": "all",
        "reg:1/team/app": "team",
        "docker.io": "hub",
    }
    assert headers_of_places(["no.login/x"]) == ()


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"reg": {"auth": "***"}}}', '{"credsStore": "../evil"}'])
def test_a_configuration_that_cannot_be_read(config: Path, text: str) -> None:
    config.parent.mkdir()
    config.write_text(text)
    with pytest.raises(Invalid):
        credentials_for("reg")


def test_credential_helpers(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "bin" / "docker-credential-fake"
    helper.parent.mkdir()
    helper.write_text(
        "#!/bin/sh\n"
        f"S={tmp_path}/kept\n"
        "case $1 in\n"
        "get) cat >/dev/null; [ -f $S ] && cat $S || { echo credentials not found in native keychain; exit 1; } ;;\n"
        "store) cat >$S ;;\n"
        "erase) cat >/dev/null; rm -f $S ;;\n"
        "esac\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:/usr/bin:/bin")
    config.parent.mkdir()
    config.write_text('{"credHelpers": {"reg": "fake"}}')
    assert credentials_for("reg") == {}
    assert store("reg", "user", "secret") == "docker-credential-fake"
    assert "secret" not in config.read_text()
    assert credentials_for("reg") == {"username": "user", "password": "secret", "serveraddress": "reg"}
    assert forget("reg")
    assert credentials_for("reg") == {}
    assert credentials_for("elsewhere") == {}


def test_a_helper_that_is_not_there(config: Path) -> None:
    config.parent.mkdir()
    config.write_text('{"credsStore": "no-such-helper"}')
    with pytest.raises(Invalid, match="docker-credential-no-such-helper"):
        credentials_for("reg")


def helper(folder: Path, script: str, name: str = "odd") -> None:
    path = folder / f"docker-credential-{name}"
    folder.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo '[]'", "not the JSON"),
        ('echo \'{"Username": 1, "Secret": "x"}\'', "not the JSON"),
        ("cat", "not the JSON"),
        ("echo executable not found; exit 1", "executable not found"),
        ("head -c 3000000 /dev/zero | tr '\\0' x; exit 1", "docker-credential-odd get"),
        ("exit 3", "failed"),
    ],
)
def test_helpers_that_misbehave(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    helper(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    config.parent.mkdir()
    config.write_text('{"credsStore": "odd"}')
    with pytest.raises(Invalid, match=said) as caught:
        credentials_for("reg")
    assert len(caught.value.message) < 500


def test_helpers_are_not_looked_for_where_one_happens_to_be(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path / "bin", 'echo \'{"Username": "u", "Secret": "s"}\'')
    monkeypatch.chdir(tmp_path / "bin")
    monkeypatch.setenv("PATH", ".::bin")
    config.parent.mkdir()
    config.write_text('{"credsStore": "odd"}')
    with pytest.raises(Invalid, match="in no directory of PATH"):
        credentials_for("reg")
    for name in ("../odd", "a b", "-x", "$(x)", ""):
        config.write_text(json.dumps({"credHelpers": {"reg": name}}))
        if name:
            with pytest.raises(Invalid, match="bad name"):
                credentials_for("reg")
        else:
            assert credentials_for("reg") == {}, "an empty name is no helper"


def test_a_token_kept_by_a_helper(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path / "bin", 'echo \'{"Username": "<token>", "Secret": "refresh"}\'')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    config.parent.mkdir()
    config.write_text('{"credsStore": "odd"}')
    assert credentials_for("reg") == {"identitytoken": "refresh", "serveraddress": "reg"}


def test_the_deepest_key_of_a_registry_is_used(config: Path) -> None:
    config.parent.mkdir()
    auths = {key: {"auth": base64.b64encode(f"{user}:x".encode()).decode()} for key, user in
             (("reg:5000", "all"), ("reg:5000/team", "team"), ("reg:5000/team/app", "app"))}  # fmt: skip
    config.write_text(json.dumps({"auths": auths}))
    for image, user in (("reg:5000/x", "all"), ("reg:5000/team/y:1", "team"), ("reg:5000/team/app@sha256:0", "app")):
        assert credentials_for("reg:5000", image)["username"] == user
    assert credentials_for("reg:5000")["username"] == "all"


def test_a_linked_configuration_stays_linked(config: Path, tmp_path: Path) -> None:
    config.parent.mkdir()
    (tmp_path / "elsewhere.json").write_text("{}")
    config.symlink_to(tmp_path / "elsewhere.json")
    store("reg", "user", "secret")
    assert config.is_symlink()
    assert "reg" in json.loads((tmp_path / "elsewhere.json").read_text())["auths"]
