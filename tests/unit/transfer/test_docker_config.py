"""~/.docker/config.json and its helpers."""

import json
import os
import subprocess
import sys

import pytest

from proa.errors import Invalid, Unavailable
from proa.transfer.docker_config import encode_auth, find_auth, load_config


@pytest.fixture
def config(tmp_path):
    def write(value):
        path = tmp_path / "config.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Puts a credential helper into PATH that answers with `says` and notes what it was asked."""

    def write(name, says, status=0):
        program = tmp_path / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\n/bin/cat > {tmp_path}/asked\nprintf '%s' '{says}'\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"relative:{tmp_path}:/bin:/usr/bin")
        return tmp_path / "asked"

    return write


def test_auths_by_host_and_url(config):
    path = config(
        {
            "auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
                "registry.example.com": {"username": "u", "password": "p"},
                "https://old.example.com/v1/": {"identitytoken": "t"},
                "empty.example.com": {},
            }
        }
    )
    hub = {"username": "hub", "password": "pw", "serveraddress": "https://index.docker.io/v1/"}
    assert find_auth("docker.io", path) == hub
    assert find_auth("registry.example.com", path)["username"] == "u"
    assert find_auth("old.example.com", path) == {"identitytoken": "t", "serveraddress": "old.example.com"}
    assert find_auth("empty.example.com", path) is None
    assert find_auth("registry.example.com:5000", path) is None
    assert find_auth("evil.example", path) is None


def test_helpers(config, helper):
    asked = helper("box", '{"ServerURL":"x","Username":"u","Secret":"s"}')
    path = config({"credHelpers": {"registry.example.com": "box"}})
    assert find_auth("registry.example.com", path)["password"] == "s"
    assert asked.read_text() == "registry.example.com"
    assert find_auth("other.example.com", path) is None

    helper("box", '{"Username":"<token>","Secret":"refresh"}')
    path = config({"credsStore": "box"})
    assert find_auth("docker.io", path) == {"identitytoken": "refresh", "serveraddress": "https://index.docker.io/v1/"}
    assert asked.read_text() == "https://index.docker.io/v1/"


def test_helper_failures(config, helper):
    helper("box", "credentials not found in native keychain", 1)
    path = config({"credsStore": "box", "auths": {"r.example.com": {"auth": "dTpw"}}})
    assert find_auth("r.example.com", path)["username"] == "u"
    helper("box", "locked", 1)
    with pytest.raises(Unavailable, match="locked"):
        find_auth("r.example.com", path)
    helper("box", "no json")
    with pytest.raises(Unavailable, match="no credentials"):
        find_auth("r.example.com", path)
    with pytest.raises(Unavailable, match="not in PATH"):
        find_auth("r.example.com", config({"credsStore": "missing"}))
    with pytest.raises(Invalid, match="helper name"):
        find_auth("r.example.com", config({"credsStore": "../../bin/sh"}))


def test_missing_and_broken_files(config, tmp_path):
    assert load_config(tmp_path / "none.json") == {}
    assert find_auth("docker.io", tmp_path / "none.json") is None
    for bad in ("[]", "{", "[" * 100_000):
        with pytest.raises(Invalid):
            load_config(config(bad))
    with pytest.raises(Invalid):
        find_auth("r.test", config({"auths": {"r.test": {"auth": "***"}}}))


def test_where_the_file_is(tmp_path, monkeypatch, config):
    config({"auths": {"r.test": {"auth": "dTpw"}}})
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert find_auth("r.test")["password"] == "p"


def test_encode_auth():
    assert encode_auth(None) == "e30="


def test_the_module_is_light():
    code = "import sys; import proa.transfer.docker_config; print(*sys.modules)"
    source = os.path.dirname(os.path.dirname(os.path.dirname(sys.modules["proa.transfer"].__file__)))
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {source!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"msgspec", "urllib3", "proa.oci", "proa.storage", "ssl", "subprocess"} & set(loaded)
