"""A real unprivileged user with an installation of proa that he may run, and an engine of his own."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import leaks
import pytest
from engines import PrivateEngine, until

import proa

PACKAGES = (
    *("msgspec", "aiohttp", "urllib3", "isal", "zstandard", "aiosignal", "attr", "attrs", "frozenlist", "multidict"),
    *("propcache", "yarl", "idna", "aiohappyeyeballs", "typing_extensions.py"),
)
TUN = "/dev/net/tun"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def installation() -> Iterator[Path]:
    """A virtual environment that everybody may read: this one's interpreter may lie in root's home."""
    top = Path(tempfile.mkdtemp(prefix="proa-installed-"))
    top.chmod(0o755)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    # The tests' own interpreter when others may run it, else Debian's of the same version, for the compiled modules.
    own = os.path.realpath(sys.executable)
    public = all(p.stat().st_mode & 0o005 == 0o005 for p in Path(own).parents)
    subprocess.run([own if public else f"/usr/bin/{version}", "-m", "venv", "--without-pip", top / "env"], check=True)
    target = top / "env/lib" / version / "site-packages"
    source = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    for name in PACKAGES:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        elif (source / name).exists():
            shutil.copy(source / name, target)
    shutil.copytree(Path(proa.__file__).parent, target / "proa", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(sys.executable).with_name("proa"), top / "env/bin/proa")
    yield top / "env"
    shutil.rmtree(top)


class UserEngine(PrivateEngine):
    """An engine that an unprivileged user's commands start and use."""

    def __init__(self, directory: Path, installation: Path, user: str) -> None:
        super().__init__(directory)
        self.user = user
        self.uid = int(subprocess.run(["id", "-u", user], capture_output=True, check=True).stdout)
        self.program = str(installation / "bin/proa")
        for key in ("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "PYTHONPATH"):
            self.env.pop(key, None)
        self.env["PATH"] = "/usr/bin:/bin"

    def proa(self, *args: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        given = {"check": True, "stdin": None, "env": None, "timeout": 120, **options}
        as_user = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        command = [*as_user, self.program, *args]
        return self._command(command, given["check"], given["stdin"], given["env"], given["timeout"])

    def processes(self) -> list[str]:
        """What runs as the user, or as one of his subordinate ids."""
        found = []
        for entry in Path("/proc").iterdir():
            status = leaks.read(entry / "status") if entry.name.isdigit() else ""
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            if fields.get("Uid", "").split()[:1] == [str(self.uid)] and not fields.get("State", "").startswith("Z"):
                found.append(f"{entry.name} {leaks.command_of(int(entry.name))}")
        return found

    def close(self) -> None:
        for name in self.out("ps", "-aq", check=False).split():
            self.proa("rm", "-f", "-v", name)
        self.proa("system", "stop", check=False)
        until(lambda: not self.processes(), f"the user's processes to end: {self.processes()}")
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.directory)], check=True)


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
