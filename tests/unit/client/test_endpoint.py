from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import proa.client.endpoint as endpoint_module
from proa.client.connection import Connection
from proa.client.endpoint import Endpoint, locate, parse_host
from proa.errors import Invalid, Unavailable

NAMES = (
    "DOCKER_CONTEXT",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "PROA_HOST",
    "DOCKER_HOST",
    "PROA_ROOT",
    "PROA_RUN",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "HOME",
)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Endpoint]:
    def find(uid: int = 0, host: str = "", **variables: str) -> Endpoint:
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(endpoint_module, "getuid", lambda: uid)
        return locate(host)

    return find


def test_root_has_the_systems_places(environment: Callable[..., Endpoint]) -> None:
    found = environment()
    assert (found.path, found.root, found.run, found.starts) == (
        "/run/proa/engine.sock",
        "/var/lib/proa",
        "/run/proa",
        True,
    )


def test_a_user_has_their_own(environment: Callable[..., Endpoint]) -> None:
    found = environment(1000, HOME="/home/a", XDG_RUNTIME_DIR="/run/user/1000")
    assert (found.root, found.run) == ("/home/a/.local/share/proa", "/run/user/1000/proa")
    assert environment(1000, XDG_DATA_HOME="/data", XDG_RUNTIME_DIR="/r").root == "/data/proa"
    assert environment(1000, HOME="/home/a").run == "/home/a/.local/share/proa/run"


def test_a_directory_is_a_whole_engine(environment: Callable[..., Endpoint]) -> None:
    found = environment(PROA_ROOT="/t/root/")
    assert (found.root, found.run, found.path) == ("/t/root", "/t/root/run", "/t/root/run/engine.sock")
    found = environment(PROA_ROOT="/t/root", PROA_RUN="/t/run")
    assert found.path == "/t/run/engine.sock"


def test_relative_directories_are_of_here(
    environment: Callable[..., Endpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert environment(PROA_ROOT="x").root == f"{tmp_path}/x"


def test_hosts_go_before_places_and_are_never_started(environment: Callable[..., Endpoint]) -> None:
    found = environment(PROA_HOST="unix:///a", DOCKER_HOST="unix:///b", PROA_RUN="/c")
    assert (found.path, found.starts) == ("/a", False)
    assert environment(DOCKER_HOST="unix:///b").path == "/b"
    assert environment(host="unix:///d", PROA_HOST="unix:///a").path == "/d"
    found = environment(DOCKER_HOST="tcp://127.0.0.1:2375")
    assert (found.host, found.port, str(found)) == ("127.0.0.1", 2375, "tcp://127.0.0.1:2375")


def test_tcp_without_a_port_is_at_dockers(environment: Callable[..., Endpoint]) -> None:
    assert str(environment(host="tcp://engine.lan/")) == "tcp://engine.lan:2375"
    assert str(environment(host="tcp://engine.lan", DOCKER_TLS_VERIFY="1")) == "tcp://engine.lan:2376"
    assert str(environment(host="tcp://[::1]", DOCKER_TLS="1")) == "tcp://[::1]:2376"
    found = environment(host="tcp://[fd00::1]:99")
    assert (found.host, found.port, found.authority) == ("fd00::1", 99, "[fd00::1]:99")


@pytest.mark.parametrize(
    "text", ["", "x", "unix://relative", "tcp://", "tcp://h/x:1", "tcp://:1", "tcp://h:0", "tcp://h:1x", "ssh://h"]
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(Invalid):
        parse_host(text)


def test_nobody_at_the_address(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"cannot connect to the engine at unix://.*: No such file") as failure:
        Connection.open(Endpoint(path=f"{tmp_path}/none"))
    assert failure.value.code == "engine-unreachable"
    assert "proa system service" in failure.value.hint


def test_a_path_the_kernel_cannot_take() -> None:
    with pytest.raises(Invalid, match="107"):
        Connection.open(Endpoint(path="/" + "x" * 120))
