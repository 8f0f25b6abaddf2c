"""Other engines of this machine, each with storage of its own: podman, and Debian's dockerd."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any


class Podman:
    """podman with a root of its own; nothing of the machine's configuration."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._short = tempfile.TemporaryDirectory(prefix="podman-")  # podman wants less than 50 characters

    def run(self, *args: str, stdin: bytes = b"") -> bytes:
        """`podman ARGS`."""
        place = ["--root", f"{self.directory}/root", "--runroot", self._short.name, "--storage-driver", "vfs"]
        done = subprocess.run(["podman", *place, *args], input=stdin, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def layers(self, name: str) -> list[str]:
        """An image's diff_ids."""
        layers: list[str] = json.loads(self.run("image", "inspect", name))[0]["RootFS"]["Layers"]
        return layers

    def close(self) -> None:
        """Remove what it keeps outside its root."""
        self._short.cleanup()


class Dockerd:
    """Debian's dockerd without networks, on a socket and data root of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # containerd's socket lies below it, and a socket's path has 108 bytes.
        self._short = tempfile.TemporaryDirectory(prefix="dockerd-")
        self.socket = f"unix://{self._short.name}/docker.sock"
        (directory / "none.json").write_text("{}")
        self._log = (directory / "dockerd.log").open("wb")
        self._process = subprocess.Popen(
            [
                "/usr/sbin/dockerd",
                *("--host", self.socket, "--data-root", f"{directory}/data", "--exec-root", f"{self._short.name}/exec"),
                *("--pidfile", f"{self._short.name}/pid", "--config-file", f"{directory}/none.json"),
                *("--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"),
            ],
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "HOME": str(directory)},
        )
        deadline = time.monotonic() + 60
        while self._docker("version").returncode:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            select.select([], [], [], 0.05)

    def log(self) -> str:
        """Its last words."""
        return (self.directory / "dockerd.log").read_text()[-4000:]

    def _docker(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
        return subprocess.run(
            ["docker", "-H", self.socket, *args], input=stdin, capture_output=True, env=env, timeout=120, check=False
        )

    def run(self, *args: str, stdin: bytes = b"") -> bytes:
        """`docker ARGS`."""
        done = self._docker(*args, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode() + self.log()
        return done.stdout

    def inspect(self, name: str) -> Any:
        """`docker image inspect NAME`, decoded."""
        return json.loads(self.run("image", "inspect", name))[0]

    def layers(self, name: str) -> list[str]:
        """An image's diff_ids."""
        layers: list[str] = self.inspect(name)["RootFS"]["Layers"]
        return layers

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
        self._short.cleanup()
