"""Containers for tests: a busybox root file system, and a server process that starts containers in it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import bundles
import pytest

from proa.errors import from_record
from proa.runtime import defaults

_numbers = itertools.count()


class Result(NamedTuple):
    status: int
    stdout: str
    stderr: str
    oom_kills: int
    warnings: list[str]


class Containers:
    """Starts containers; a failed start raises its typed error."""

    def __init__(self, base: Path, lower: Path) -> None:
        self.base = base
        self.lower = lower
        self.server = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("container_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"SECRET": "of the host", "PATH": "/usr/bin:/bin"},
        )
        self.pids: set[int] = set()

    def call(self, method: str, *arguments: Any) -> dict[str, Any]:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps([method, arguments]) + "\n")
        self.server.stdin.flush()
        line = self.server.stdout.readline()
        assert line, "the container server died"
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise from_record(reply["error"])
        return reply

    def overlay(self, lower: Path | None = None, *options: str) -> list[dict[str, Any]]:
        scratch = Path(tempfile.mkdtemp(dir=self.base))
        (scratch / "upper").mkdir()
        (scratch / "work").mkdir()
        directories = [
            f"lowerdir={lower or self.lower}",
            f"upperdir={scratch / 'upper'}",
            f"workdir={scratch / 'work'}",
        ]
        options = ("redirect_dir=off", "index=off", "metacopy=off", "volatile", *options)
        return [{"type": "overlay", "source": "overlay", "options": [*directories, *options]}]

    def copy(self) -> Path:
        """A copy of the root file system to make hostile."""
        target = Path(tempfile.mkdtemp(dir=self.base)) / "root"
        shutil.copytree(self.lower, target, symlinks=True)
        return target

    def start(
        self,
        *args: str,
        rootfs: list[dict[str, Any]] | None = None,
        resources: dict[str, Any] | None = None,
        change: Callable[[dict[str, Any]], object] | None = None,
        **process: Any,
    ) -> int:
        """Start a container of default isolation that runs `args`; `change` may edit the config. Returns the pid."""
        config = default_config(list(args), **process)
        if change is not None:
            change(config)
        cgroup = f"/proa/test-{os.getpid()}-{next(_numbers)}"
        reply = self.call("start", config, rootfs or self.overlay(), cgroup, resources)
        pid: int = reply["pid"]
        self.pids.add(pid)
        self.warnings = reply["warnings"]
        return pid

    def wait(self, pid: int, timeout: float = 20.0) -> Result:
        self.pids.discard(pid)
        reply = self.call("wait", pid, timeout)
        assert not reply["timed_out"], reply
        return Result(reply["status"], reply["stdout"], reply["stderr"], reply.get("oom_kills", 0), self.warnings)

    def run(self, *args: str, **options: Any) -> Result:
        return self.wait(self.start(*args, **options))

    def sh(self, script: str, **options: Any) -> Result:
        return self.run("/bin/sh", "-c", script, **options)

    def exec(self, target: int, *args: str, **process: Any) -> Result:
        return self.wait(self.start_exec(target, *args, **process))

    def start_exec(self, target: int, *args: str, **process: Any) -> int:
        reply = self.call("exec", target, process_config(list(args), **process))
        self.warnings = reply["warnings"]
        self.pids.add(reply["pid"])
        pid: int = reply["pid"]
        return pid

    def stop(self, pid: int) -> None:
        self.call("signal", pid, 9)
        self.wait(pid)

    def clean_up(self) -> None:
        for pid in list(self.pids):
            self.call("signal", pid, 9)
        for pid in list(self.pids):
            self.wait(pid)


def process_config(args: list[str], **changes: Any) -> dict[str, Any]:
    process = {
        "args": args,
        "cwd": "/",
        "env": ["PATH=/bin:/usr/bin"],
        "user": {"username": changes.pop("user", "")},
        "capabilities": defaults.capabilities(),
    }
    return process | changes


def default_config(args: list[str], **changes: Any) -> dict[str, Any]:
    return {
        "ociVersion": "1.0.2",
        "process": process_config(args, **changes),
        "hostname": "box",
        "mounts": defaults.mounts(),
        "linux": {
            "namespaces": defaults.namespaces(),
            "maskedPaths": defaults.masked_paths(),
            "readonlyPaths": list(defaults.READONLY_PATHS),
            "sysctl": dict(defaults.NETWORK_SYSCTLS),
        },
        "annotations": {"proa.seccomp": "default"},
    }


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("busybox") / "root"
    for name in ("bin", "dev", "etc", "home/user", "proc", "root", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    listed = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout
    for applet in listed.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001:a user:/home/user:/bin/sh\n"
        "1337:x:0:0:::\nbad:x:99999999999:0:::\n"
    )
    (root / "etc/group").write_text("root:x:0:\nwheel:x:10:root,user\nstaff:x:50:user\nuser:x:1001:\n")
    return root


@pytest.fixture(scope="session")
def _containers(tmp_path_factory: pytest.TempPathFactory, busybox_root: Path) -> Iterator[Containers]:
    made = Containers(tmp_path_factory.mktemp("containers"), busybox_root)
    yield made
    assert made.server.stdin is not None
    assert made.server.stdout is not None
    made.server.stdin.close()
    made.server.stdout.close()
    assert made.server.wait(30) == 0


@pytest.fixture
def containers(_containers: Containers) -> Iterator[Containers]:
    yield _containers
    _containers.clean_up()


@pytest.fixture
def bundle(tmp_path: Path, busybox_root: Path) -> Iterator[bundles.Bundle]:
    """An OCI bundle that `proa-runtime` can run."""
    made = bundles.Bundle(tmp_path, busybox_root, f"proa-test-{os.getpid()}-{next(_numbers)}")
    yield made
    made.clean_up()
