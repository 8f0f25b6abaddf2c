"""The listening socket, readiness, and systemd's socket activation."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.api import activation
from proa.errors import Invalid, Unavailable


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="api") as directory:
        yield Path(directory)


def test_bind_is_0660_and_replaces_a_dead_socket(place: Path) -> None:
    path = place / "s"
    activation.bind(path).close()
    assert stat.S_IMODE(path.lstat().st_mode) == 0o660
    with activation.bind(path) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert not listener.get_inheritable()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to a group")
def test_the_group_may_pass_the_run_directory_but_not_read_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "GROUP", "adm")
    place.chmod(0o700)
    activation.bind(place / "s").close()
    assert stat.S_IMODE(place.stat().st_mode) == 0o710
    assert place.stat().st_gid == (place / "s").stat().st_gid != 0


def test_bind_refuses_what_it_must(place: Path) -> None:
    with activation.bind(place / "s"):
        with pytest.raises(Unavailable, match="another engine serves"):
            activation.bind(place / "s")
        assert (place / "s").exists()
    (place / "file").write_text("mine")
    with pytest.raises(Invalid, match="no socket"):
        activation.bind(place / "file")
    assert (place / "file").read_text() == "mine"
    with pytest.raises(Invalid, match="too long"):
        activation.bind(place / ("x" * 120))
    with pytest.raises(Invalid, match="No such file"):
        activation.bind(place / "missing" / "s")


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(place: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"@{place.name}" if abstract else str(place / "notify")
        manager.bind(name.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        activation.notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    activation.notify("STOPPING=1")  # nobody listens: no harm
    monkeypatch.delenv("NOTIFY_SOCKET")
    activation.notify("READY=1")


_INHERIT = """
import os, sys
os.dup2(int(sys.argv[3]), 3)
from proa.api.activation import inherited_socket
from proa.errors import ProaError
os.environ["LISTEN_PID"] = str(os.getpid()) if sys.argv[1] == "ours" else "1"
os.environ["LISTEN_FDS"] = sys.argv[2]
try:
    listener = inherited_socket()
except ProaError as e:
    print(e.message)
else:
    print(listener and listener.getsockname(), "LISTEN_FDS" in os.environ)
    if listener is not None:
        assert not listener.get_inheritable()
"""


@pytest.mark.parametrize(
    ("pid", "count", "kind", "said"),
    [
        ("ours", "1", "listening", "/s False"),
        ("other", "1", "listening", "None False"),
        ("ours", "0", "listening", "None False"),
        ("ours", "2", "listening", "passed 2 sockets"),
        ("ours", "1", "unbound", "no listening unix socket"),
    ],
)
def test_socket_activation(place: Path, pid: str, count: str, kind: str, said: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "listening":
            listener.bind(str(place / "s"))
            listener.listen()
        done = subprocess.run(
            [sys.executable, "-c", _INHERIT, pid, count, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
            check=True,
        )
    assert said in done.stdout
