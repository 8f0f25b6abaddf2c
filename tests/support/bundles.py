"""OCI bundles on a busybox root, and the `proa-runtime` command that runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from proa.runtime.cgroups import hierarchies
from proa.runtime.verbs.spec import example

PROGRAM = str(Path(sys.executable).parent / "proa-runtime")


class Bundle:
    """A container's directory, with its configuration as a dictionary to be changed, and the verbs on it."""

    def __init__(self, base: Path, root: Path, container_id: str) -> None:
        self.id = container_id
        self.path = base / container_id
        self.path.mkdir(parents=True)
        self.state_root = base / "state"
        self.rootfs = root
        self.config: dict[str, Any] = example()
        self.config["root"] = {"path": str(root), "readonly": True}
        self.config["process"]["terminal"] = False
        self.log = self.path / "log"

    @property
    def process(self) -> dict[str, Any]:
        process: dict[str, Any] = self.config["process"]
        return process

    def own_root(self) -> Path:
        """Give it a root of its own, to be changed."""
        self.rootfs = self.path / "rootfs"
        shutil.copytree(self.config["root"]["path"], self.rootfs, symlinks=True)
        self.config["root"]["path"] = "rootfs"
        return self.rootfs

    def args(self, *args: str) -> Bundle:
        self.process["args"] = list(args)
        return self

    def call(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`proa-runtime` with these words; the configuration is written first."""
        (self.path / "config.json").write_text(json.dumps(self.config))
        command = [PROGRAM, "--root", str(self.state_root), "--log", str(self.log), "--log-format", "json", *words]
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60, **options}
        return subprocess.run(command, check=False, **options)

    def must(self, *words: str, **options: Any) -> str:
        """As `call`, for what has to succeed; returns its output."""
        done = self.call(*words, **options)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        output: str = done.stdout
        return output

    def create(self, *options: str, **more: Any) -> None:
        """create; the container's own output goes to the file `output`, as it outlives the command."""
        with open(self.path / "output", "wb") as output:
            done = self.call(
                "create", "--bundle", str(self.path), *options, self.id,
                capture_output=False, stdout=output, stderr=subprocess.STDOUT, **more,
            )  # fmt: skip
        assert done.returncode == 0, self.output()

    def output(self) -> str:
        return (self.path / "output").read_text()

    def run(self, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return self.call("run", "--bundle", str(self.path), *options, self.id, **more)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.must("state", self.id))
        return state

    def wait(self, status: str = "stopped") -> None:
        """Until the container is in this state."""
        deadline = time.monotonic() + 20
        while (now := self.state()["status"]) != status:
            assert time.monotonic() < deadline, f"still {now}: {self.output()}"
            time.sleep(0.01)

    def logged(self) -> list[dict[str, str]]:
        """The log, decoded."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def clean_up(self) -> None:
        """End it, and see that nothing is left of it."""
        self.call("delete", "--force", self.id)
        assert not (self.state_root / self.id).exists()
        for hierarchy in hierarchies():
            assert not os.path.exists(f"{hierarchy.mount_point}/{self.id}")
