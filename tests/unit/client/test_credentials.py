from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from proa.client.credentials import auth_header, credentials_for, forget, store
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
