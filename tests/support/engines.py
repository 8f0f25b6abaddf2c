"""Private engines for tests: each with its own root and run directory, gone without a trace afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import leaks

PROA = str(Path(sys.executable).with_name("proa"))


class PrivateEngine:
    """One engine of a test: its command line, its directories, and the check that nothing remains."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.run_dir = directory / "run"
        self.directory = directory
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PROA_", "DOCKER_"))},
            "PROA_ROOT": str(self.root),
            "PROA_RUN": str(self.run_dir),
            "HOME": str(directory),
        }
        self.socket = f"unix://{self.run_dir}/engine.sock"

    def proa(
        self,
        *args: str,
        check: bool = True,
        stdin: bytes | None = None,
        env: dict[str, str] | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `proa ARGS`; `check` asserts that it succeeds and shows what it said when not."""
        done = subprocess.run(
            [PROA, *args],
            input=stdin,
            capture_output=True,
            env={**self.env, **(env or {})},
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"proa {' '.join(args)}: exit {done.returncode}\n{done.stdout.decode(errors='replace')}\n"
            f"{done.stderr.decode(errors='replace')}"
        )
        return done

    def out(self, *args: str, **kwargs: Any) -> str:
        """Standard output of a command that must succeed, without the last newline."""
        return self.proa(*args, **kwargs).stdout.decode().rstrip("\n")

    def docker(self, *args: str, check: bool = True, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run the real docker CLI against this engine."""
        done = subprocess.run(
            ["docker", "-H", self.socket, *args],
            input=stdin,
            capture_output=True,
            env=self.env,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"docker {' '.join(args)}: exit {done.returncode}\n{done.stdout.decode(errors='replace')}\n"
            f"{done.stderr.decode(errors='replace')}"
        )
        return done

    def inspect(self, name: str) -> Any:
        """`proa inspect NAME`, decoded."""
        return json.loads(self.out("inspect", name))[0]

    @property
    def pid(self) -> int:
        """The engine's process, from the lock file of its root."""
        return int((self.root / "lock").read_text())

    def kill_engine(self) -> None:
        """kill -9 the engine and wait until it is gone."""
        fd = os.pidfd_open(self.pid)
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        import select

        select.select([fd], [], [], 10)
        os.close(fd)

    def close(self) -> None:
        """Remove every container, stop the engine, and assert that nothing of it is left."""
        if (self.run_dir / "engine.sock").exists() or (self.root / "containers").is_dir():
            ids = self.out("ps", "-aq").split()
            if ids:
                self.proa("rm", "-f", "-v", *ids)
            self.proa("system", "stop")
        words = (str(self.directory), *self._ids())
        left: Sequence[str] = []
        for _ in range(100):
            left = leaks.naming(words)
            if not left:
                break
            time.sleep(0.05)
        assert not left, "left on the machine:\n" + "\n".join(left)
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.directory)], check=True)
        assert not self.directory.exists()

    def _ids(self) -> tuple[str, ...]:
        record = self.root / "engine-id"
        return (record.read_text().strip(),) if record.exists() else ()


def available(*programs: str) -> bool:
    """True when every program is installed."""
    return all(shutil.which(p) for p in programs)
