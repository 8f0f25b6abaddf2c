"""Engines of unprivileged users, from an installation that everybody may read."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leaks
from engines import PrivateEngine, until

import proa

PACKAGES = (
    *("msgspec", "aiohttp", "urllib3", "isal", "zstandard", "aiosignal", "attr", "attrs", "frozenlist", "multidict"),
    *("propcache", "yarl", "idna", "aiohappyeyeballs", "typing_extensions.py"),
)


@contextlib.contextmanager
def installed() -> Iterator[Path]:
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
    # With the compiled modules, as pip has them: the user cannot write any, and would compile for each command.
    shutil.copytree(Path(proa.__file__).parent, target / "proa", ignore=shutil.ignore_patterns("bundle.cpython-*"))
    compile_all = [top / "env/bin/python3", "-m", "compileall", "-q", target / "proa"]
    subprocess.run(compile_all, check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""})
    shutil.copy(Path(sys.executable).with_name("proa"), top / "env/bin/proa")
    yield top / "env"
    shutil.rmtree(top)


class UserEngine(PrivateEngine):
    """An engine that an unprivileged user's commands start and use."""

    def __init__(self, directory: Path, installation: Path, user: str, cgroup: str = "") -> None:
        super().__init__(directory)
        self.user = user
        known = not user.isdigit()
        self.uid = int(subprocess.run(["id", "-u", user], capture_output=True, check=True).stdout if known else user)
        # What moves a command where the user's session is, as a login would.
        self.session = ["sh", "-c", f'echo $$ > {cgroup}/cgroup.procs; exec "$@"', "sh"] if cgroup else []
        self.program = str(installation / "bin/proa")
        for key in ("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "PYTHONPATH"):
            self.env.pop(key, None)
        self.env["PATH"] = "/usr/bin:/bin"

    def proa(self, *args: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        given = {"check": True, "stdin": None, "env": None, "timeout": 120, **options}
        as_user = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        command = [*self.session, *as_user, self.program, *args]
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
