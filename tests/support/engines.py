"""Private engines for tests: each with its own root and run directory, gone without a trace afterwards."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import leaks
from terminals import Terminal

PROA = str(Path(sys.executable).with_name("proa"))
PATIENCE_S = 30.0


def until(condition: Callable[[], Any], what: str = "", seconds: float = PATIENCE_S) -> Any:
    """Ask again until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what or condition}"
        time.sleep(0.01)
    return answer


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `proa ARGS`; `check` asserts that it succeeds and shows what it said when not."""
        return self._command([PROA, *args], check, stdin, env, timeout)

    def docker(
        self, *args: str, check: bool = True, stdin: bytes | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the real docker CLI against this engine."""
        return self._command(["docker", "-H", self.socket, *args], check, stdin, None, timeout)

    def _command(
        self, command: list[str], check: bool, stdin: bytes | None, env: Mapping[str, str] | None, timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        done = subprocess.run(
            command, **given, capture_output=True, env={**self.env, **(env or {})}, timeout=timeout, check=False
        )
        assert not check or done.returncode == 0, (
            f"{' '.join(command)}: exit {done.returncode}\n{done.stdout.decode(errors='replace')}\n"
            f"{done.stderr.decode(errors='replace')}\n{self.log()}"
        )
        return done

    def out(self, *args: str, **kwargs: Any) -> str:
        """Standard output of a command that must succeed, without the last newline."""
        return self.proa(*args, **kwargs).stdout.decode().rstrip("\n")

    def sh(self, script: str, *options: str, image: str = "busybox", **kwargs: Any) -> str:
        """What a shell script prints in a new container without network; `options` are those of `proa run`."""
        return self.out("run", "--rm", "--network", "none", *options, image, "sh", "-c", script, **kwargs)

    def popen(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        """`proa ARGS` in the background with pipes; the caller waits for it."""
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([PROA, *args], env=self.env, **given)

    def terminal(self, *args: str, program: str = PROA, size: tuple[int, int] = (33, 101)) -> Terminal:
        """`proa ARGS` (or `docker`) in a pseudo-terminal of so many rows and columns."""
        command = [program, *args] if program == PROA else [program, "-H", self.socket, *args]
        return Terminal(command, {**self.env, "TERM": "xterm"}, size)

    def actions(self, container: str, *wanted: str) -> list[str]:
        """What has happened to a container, of these kinds of events or all. By id: a name may have been another's."""
        filters = [f"container={self.inspect(container)['Id']}", *(f"event={action}" for action in wanted)]
        options = [word for text in filters for word in ("--filter", text)]
        text = self.out("events", "--since", "10m", "--until", "0s", *options, "--format", "json")
        return [json.loads(line)["Action"] for line in text.splitlines()]

    def inspect(self, name: str) -> Any:
        """`proa inspect NAME`, decoded."""
        return json.loads(self.out("inspect", name))[0]

    def containers(self) -> list[str]:
        """Every container's name."""
        return self.out("ps", "-a", "--format", "{{.Names}}").split()

    def stored(self) -> dict[str, set[str]]:
        """What the store holds: blobs, partial downloads, images, snapshots, containers, leases."""

        def below(*parts: str) -> set[str]:
            top = self.root.joinpath(*parts)
            return {str(p.relative_to(top)) for p in top.rglob("*")} if top.is_dir() else set()

        return {
            "blobs": below("content", "blobs"),
            "partial": below("content", "ingests"),
            "images": below("images"),
            "snapshots": below("snapshots", "records"),
            "containers": below("containers"),
            "leases": below("leases"),
        }

    def log(self) -> str:
        """What the engine has logged."""
        path = self.run_dir / "engine.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    @property
    def pid(self) -> int:
        """The engine's process, from the lock file of its root."""
        return int((self.root / "lock").read_text())

    def monitor_pid(self, name: str) -> int:
        """The process that watches over a running container: its first one's parent, once it is handed over."""
        pid = int(self.inspect(name)["State"]["Pid"])
        until(lambda: leaks.command_of(parent(pid)).startswith("proa monitor"), f"the monitor of {name}")
        return parent(pid)

    def nursery_pid(self) -> int:
        """The process that starts monitors: the engine's child of that name."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():  # a child belongs to the thread that forked it
            for child in leaks.read(thread / "children").split():
                if leaks.command_of(int(child)).startswith("proa nursery"):
                    return int(child)
        raise AssertionError("the engine has no nursery")

    def kill_engine(self) -> None:
        """kill -9 the engine and wait until it is gone."""
        kill_and_wait(self.pid)

    def running(self) -> bool:
        """Whether the engine's process is there."""
        return leaks.command_of(self.pid_or_zero()).find(str(self.root)) >= 0

    def pid_or_zero(self) -> int:
        try:
            return self.pid
        except (FileNotFoundError, ValueError):
            return 0

    def close(self) -> None:
        """Remove every container, stop the engine, and assert that nothing of it is left."""
        if (self.run_dir / "engine.sock").exists() or (self.root / "containers").is_dir():
            ids = self.out("ps", "-aq").split()
            if ids:
                self.proa("rm", "-f", "-v", *ids)
            self.proa("system", "stop")
        log = self.log()
        assert "Traceback" not in log, log
        words = (str(self.directory), *self._ids())
        left: Sequence[str] = []
        for _ in range(200):
            left = [*leaks.naming(words), *leaks.users_of(self.directory)]
            left = [line for line in left if line != f"temporary file: {self.directory}"]
            if not left:
                break
            time.sleep(0.02)
        assert not left, "left on the machine:\n" + "\n".join(left)
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.directory)], check=True)
        assert not self.directory.exists()

    def _ids(self) -> tuple[str, ...]:
        record = self.root / "engine-id"
        return (record.read_text().strip(),) if record.exists() else ()


def parent(pid: int) -> int:
    """The parent's pid."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kill_and_wait(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to one process and wait until it is gone."""
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, number)
        assert select.select([fd], [], [], 20)[0], f"{pid} lives on"
    finally:
        os.close(fd)


def available(*programs: str) -> bool:
    """True when every program is installed."""
    return all(shutil.which(p) for p in programs)
