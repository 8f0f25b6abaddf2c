"""A real unprivileged user with an installation of proa that he may run, and an engine of his own."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import leaks
import pytest
from user_engines import UserEngine, installed

TUN = "/dev/net/tun"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def installation() -> Iterator[Path]:
    """A virtual environment that everybody may read."""
    with installed() as place:
        yield place


@pytest.fixture(scope="module")
def users() -> Iterator[Callable[..., str]]:
    """Makes users; `ranges=False` without subordinate ids."""
    made: list[str] = []

    def make(*, ranges: bool = True) -> str:
        name = f"proa{os.getpid()}x{next(_numbers)}"
        subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
        made.append(name)
        option = "--add-subuids" if ranges else ""
        for file, change in (("/etc/subuid", "-v"), ("/etc/subgid", "-w")):
            has = any(line.startswith(f"{name}:") for line in leaks.read(Path(file)).splitlines())
            if option and not has:
                subprocess.run(["usermod", change, "300000000-300065535", name], check=True)
            elif not option and has:
                kept = [line for line in leaks.read(Path(file)).splitlines() if not line.startswith(f"{name}:")]
                Path(file).write_text("".join(f"{line}\n" for line in kept))
        return name

    yield make
    for name in made:
        subprocess.run(["userdel", name], check=True, capture_output=True)


@pytest.fixture(scope="module")
def user_engine(
    installation: Path, users: Callable[..., str], busybox_tar: Path
) -> Iterator[Callable[..., UserEngine]]:
    """Makes engines of new users, which have the image `busybox`."""
    made: list[UserEngine] = []

    def make(*, ranges: bool = True) -> UserEngine:
        directory = Path(tempfile.mkdtemp(prefix="proa-user-"))
        name = users(ranges=ranges)
        shutil.copy(busybox_tar, directory / "busybox.tar")
        (directory / "busybox.tar").chmod(0o644)
        shutil.chown(directory, name)
        engine = UserEngine(directory, installation, name)
        made.append(engine)
        engine.proa("import", str(directory / "busybox.tar"), "busybox")
        return engine

    yield make
    for engine in made:
        engine.close()


@contextlib.contextmanager
def tun_mode(mode: int) -> Iterator[None]:
    """Who may use /dev/net/tun, until the end; tests of other processes wait meanwhile."""
    with open(Path(tempfile.gettempdir(), "tun-mode.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = os.stat(TUN).st_mode & 0o777
        os.chmod(TUN, mode)
        try:
            yield
        finally:
            os.chmod(TUN, before)


@pytest.fixture(scope="module")
def tun() -> Iterator[None]:
    """/dev/net/tun for everybody, as udev makes it on most machines."""
    with tun_mode(0o666):
        yield


@pytest.fixture(scope="module")
def no_tun() -> Iterator[None]:
    """/dev/net/tun for root only."""
    with tun_mode(0o600):
        yield


@pytest.fixture(scope="module")
def peer() -> Iterator[str]:
    """Another machine, the network namespace `proa-peer-PID`, which says hello on port 8080; its address."""
    name = f"proa-peer-{os.getpid()}"
    link = f"pv{os.getpid()}"
    net = os.getpid() % 200

    def ip(*args: str) -> None:
        subprocess.run(["ip", *args], check=True)

    ip("netns", "add", name)
    ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
    ip("addr", "add", f"198.18.{net}.1/24", "dev", link)
    ip("link", "set", link, "up")
    ip("-n", name, "addr", "add", f"198.18.{net}.2/24", "dev", "eth0")
    ip("-n", name, "link", "set", "eth0", "up")
    serve = "while :; do echo hello from outside | busybox nc -l -p 8080; done"
    server = subprocess.Popen(["ip", "netns", "exec", name, "sh", "-c", serve], start_new_session=True)
    yield f"198.18.{net}.2"
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    ip("netns", "del", name)
