"""Where and how TLS is spoken: the environment's word, Docker's files, Docker's contexts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from proa.client import contexts
from proa.client.connection import Connection
from proa.client.endpoint import Endpoint, locate, parse_host
from proa.client.tls import Tls, settle
from proa.errors import Invalid, NotFound


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's configuration directory, and nothing else said."""
    for name in ("PROA_HOST", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def _context(place: Path, name: str, host: str, *files: str, trusting: bool = False) -> None:
    identity = hashlib.sha256(name.encode()).hexdigest()
    meta, tls = place / "contexts/meta" / identity, place / "contexts/tls" / identity / "docker"
    meta.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": trusting}
    document = {"Name": name, "Metadata": {"Description": f"of {name}"}, "Endpoints": {"docker": endpoint}}
    (meta / "meta.json").write_text(json.dumps(document))
    for file in files:
        tls.mkdir(parents=True, exist_ok=True)
        (tls / file).write_text("x")


def test_what_the_environment_says(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settle(None) is None
    monkeypatch.setenv("DOCKER_TLS", "1")
    assert settle(None) == Tls(verify=False)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert settle(None) == Tls(ca=f"{place}/ca.pem")
    (place / "cert.pem").touch()
    (place / "key.pem").touch()
    both = {"certificate": f"{place}/cert.pem", "key": f"{place}/key.pem"}
    assert settle(None) == settle(True) == Tls(ca=f"{place}/ca.pem", **both)
    monkeypatch.setenv("DOCKER_CERT_PATH", "/certs")
    assert settle(None) == Tls(ca="/certs/ca.pem")
    assert settle(False) is None
    assert parse_host("unix:///x").tls is None
    assert parse_host("tcp://h").tls == Tls(ca="/certs/ca.pem")
    assert parse_host("tcp://h", tls=Tls(ca="/mine")).tls == Tls(ca="/mine")


def test_a_context_is_an_engine(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _context(place, "far", "tcp://192.0.2.7:2376", "ca.pem", "cert.pem", "key.pem")
    _context(place, "near", "unix:///run/x.sock")
    _context(place, "bare", "tcp://127.0.0.1:99")
    _context(place, "loose", "tcp://h", trusting=True)
    _context(place, "odd", "ssh://h")
    (place / "contexts/meta/junk").mkdir()
    (place / "contexts/meta/junk/meta.json").write_text("[]")
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")  # says nothing about contexts
    found = locate()
    assert str(found) == "tcp://192.0.2.7:2376"
    material = f"{place}/contexts/tls/{hashlib.sha256(b'far').hexdigest()}/docker"
    assert found.tls == Tls(ca=f"{material}/ca.pem", certificate=f"{material}/cert.pem", key=f"{material}/key.pem")
    assert contexts.endpoint_of("near").path == "/run/x.sock"
    assert contexts.endpoint_of("bare").tls is None
    assert contexts.endpoint_of("loose").tls == Tls(verify=False)
    assert contexts.endpoint_of("default").starts
    assert [c.name for c in contexts.walk()] == ["bare", "far", "loose", "near", "odd"]
    assert locate("unix:///y").path == "/y"
    monkeypatch.setenv("DOCKER_HOST", "unix:///z")
    assert locate().path == "/z"
    with pytest.raises(Invalid, match="the host of the context odd"):
        contexts.endpoint_of("odd")
    with pytest.raises(NotFound, match='context "none": context not found'):
        contexts.endpoint_of("none")
    (place / "contexts/meta" / hashlib.sha256(b"near").hexdigest() / "meta.json").write_text("{}")
    with pytest.raises(Invalid, match=r"cannot read .*meta\.json"):
        contexts.find("near")


def test_which_one_the_docker_command_is_in(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert contexts.current() == "default"
    (place / "config.json").write_text('{"currentContext": "far"}')
    assert contexts.current() == "far"
    assert locate().starts  # proa does not follow it
    monkeypatch.setenv("DOCKER_CONTEXT", "near")
    assert contexts.current() == "near"
    monkeypatch.setenv("DOCKER_HOST", "unix:///x")
    assert contexts.current() == "default"
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.delenv("DOCKER_CONTEXT")
    for junk in ("{", "[]", '{"currentContext": 1}'):
        (place / "config.json").write_text(junk)
        assert contexts.current() == "default"


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (tmp_path / "junk.pem").write_text("junk")
        for tls, file in (
            (Tls(ca="/nowhere/ca.pem"), "/nowhere/ca.pem: No such file or directory"),
            (Tls(ca=f"{tmp_path}/junk.pem"), f"{tmp_path}/junk.pem"),
            (Tls(verify=False, certificate=f"{tmp_path}/junk.pem", key=f"{tmp_path}/junk.pem"), "junk.pem"),
        ):
            with pytest.raises(Invalid, match=r"cannot use the TLS file") as caught:
                Connection.open(Endpoint(host="127.0.0.1", port=port, tls=tls))
            assert file in caught.value.message
