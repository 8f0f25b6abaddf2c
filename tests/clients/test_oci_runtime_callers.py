"""podman and containerd with `proa-runtime` in place of runc, and CRI-O's calls (conmon's argv, CRI-O 1.36 source)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import PROGRAM, Bundle
from peers import Podman

pytestmark = [pytest.mark.root, pytest.mark.peers]


class PodmanWith(Podman):
    """podman with our runtime and without anything of systemd."""

    def call(self, *args: str) -> subprocess.CompletedProcess[str]:
        place = ["--root", f"{self.directory}/root", "--runroot", self._short.name, "--storage-driver", "vfs"]
        how = ["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", PROGRAM]
        return subprocess.run(
            ["podman", *place, *how, *args], capture_output=True, text=True, timeout=120, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, busybox_tar: Path) -> Iterator[PodmanWith]:
    made = PodmanWith(tmp_path_factory.mktemp("podman"))
    assert made.call("import", str(busybox_tar), "busybox").returncode == 0
    yield made
    made.call("rm", "--all", "--force", "--time", "0")
    for controller in Path("/sys/fs/cgroup").glob("*/libpod_parent"):
        for left in [*controller.rglob("*/"), controller]:
            with contextlib.suppress(OSError):  # other podmans use it, too
                left.rmdir()
    made.close()


def test_podman_runs_execs_stops_and_removes(podman: PodmanWith) -> None:
    done = podman.call("run", "--rm", "--network", "none", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    started = podman.call("run", "-d", "--name", "a", "--network", "none", "--memory", "64m", "--pids-limit", "50",
                          "busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")  # fmt: skip
    assert started.returncode == 0, started.stderr
    done = podman.call("exec", "-e", "A=b", "a", "sh", "-c", "echo $A; exit 3")
    assert (done.returncode, done.stdout) == (3, "b\n")
    assert podman.call("exec", "-t", "a", "test", "-t", "0").returncode == 0
    assert podman.call("pause", "a").returncode == 0
    assert json.loads(podman.call("inspect", "a").stdout)[0]["State"]["Status"] == "paused"
    assert podman.call("unpause", "a").returncode == 0
    assert podman.call("update", "--memory", "128m", "a").returncode == 0
    assert "sh" in podman.call("top", "a").stdout
    assert podman.call("stop", "-t", "10", "a").returncode == 0
    assert json.loads(podman.call("inspect", "a").stdout)[0]["State"]["ExitCode"] == 0
    assert podman.call("start", "a").returncode == 0
    assert podman.call("rm", "--force", "--time", "0", "a").returncode == 0


def test_podman_tells_missing_commands_apart(podman: PodmanWith) -> None:
    done = podman.call("run", "--rm", "--network", "none", "busybox", "no-such-command")
    assert done.returncode == 127
    assert "executable file not found in $PATH" in done.stderr
    assert podman.call("run", "--rm", "--network", "none", "busybox", "/etc/passwd").returncode == 126


def test_podman_mounts_terminals_and_privileges(podman: PodmanWith, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("shared\n")
    script = "cat /b/file; hostname; touch /b/n /n; touch /tmp/n && echo ok; tty"
    where = ("--read-only", "--tmpfs", "/x", "--volume", f"{tmp_path}:/b:ro", "--hostname", "named")
    done = podman.call("run", "--rm", "-t", "--network", "none", *where, "busybox", "sh", "-c", script)
    lines = done.stdout.split()
    assert lines[:2] == ["shared", "named"]
    assert done.stdout.count("Read-only file system") == 2
    assert lines[-2:] == ["ok", "/dev/pts/0"]
    user = podman.call("run", "--rm", "--network", "none", "--user", "1000:50", "busybox", "id")
    assert user.stdout.startswith("uid=1000(user) gid=50"), user.stderr
    caps = podman.call(
        "run", "--rm", "--network", "none", "--privileged", "busybox", "grep", "CapEff", "/proc/self/status"
    )
    assert int(caps.stdout.split()[1], 16) >> 21 & 1, caps.stderr


class Containerd:
    """Debian's containerd, and ctr, in a directory of their own."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ctd-"))
        config = self.directory / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{self.directory}/root"\nstate = "{self.directory}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\n  address = "{self.directory}/s"\n[ttrpc]\n  address = "{self.directory}/t"\n'
        )
        with open(self.directory / "log", "wb") as log:
            self.process = subprocess.Popen(["containerd", "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while self.ctr("version").returncode:
            assert time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.05)

    def ctr(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ctr", "--address", f"{self.directory}/s", *args], capture_output=True, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        for mount in sorted((self.directory / "state").rglob("rootfs"), reverse=True):
            if os.path.ismount(mount):
                subprocess.run(["umount", str(mount)], check=False)
        shutil.rmtree(self.directory)


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    made = Containerd()
    yield made
    made.close()
    for controller in Path("/sys/fs/cgroup").glob("*/default"):
        with contextlib.suppress(OSError):  # other containerds use it, too
            controller.rmdir()


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory, busybox_tar: Path) -> Path:
    made = tmp_path_factory.mktemp("rootfs")
    subprocess.run(["tar", "-xf", str(busybox_tar), "-C", str(made)], check=True)
    return made


def test_containerd_runs_tasks(containerd: Containerd, rootfs: Path) -> None:
    how = ("--rootfs", "--runc-binary", PROGRAM)
    done = containerd.ctr("run", "--rm", *how, str(rootfs), "one", "sh", "-c", "echo out; exit 5")
    assert (done.returncode, done.stdout) == (5, "out\n")
    started = containerd.ctr("run", "--detach", *how, str(rootfs), "two", "sleep", "100")
    assert started.returncode == 0, started.stderr
    done = containerd.ctr("task", "exec", "--exec-id", "e", "two", "sh", "-c", "echo more; exit 4")
    assert (done.returncode, done.stdout) == (4, "more\n")
    assert containerd.ctr("task", "pause", "two").returncode == 0
    assert "PAUSED" in containerd.ctr("task", "ls").stdout
    assert containerd.ctr("task", "resume", "two").returncode == 0
    assert len(containerd.ctr("task", "ps", "two").stdout.splitlines()) == 2
    assert containerd.ctr("task", "kill", "--signal", "SIGKILL", "two").returncode == 0
    deadline = time.monotonic() + 20
    while "STOPPED" not in containerd.ctr("task", "ls").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert containerd.ctr("task", "rm", "two").returncode == 0
    assert containerd.ctr("container", "rm", "two").returncode == 0
    missing = containerd.ctr("run", "--rm", *how, str(rootfs), "three", "no-such-command")
    assert missing.returncode == 1
    assert "OCI runtime create failed" in missing.stderr
    assert "executable file not found in $PATH" in missing.stderr


def test_the_calls_of_cri_o(tmp_path: Path, rootfs: Path) -> None:
    """CRI-O's own, and those of conmon for it; conmon's part is played by the test."""
    bundle = Bundle(tmp_path, rootfs, f"proa-test-crio-{os.getpid()}")
    bundle.args("sleep", "100")
    try:
        features = json.loads(bundle.must("features"))
        assert features["linux"]["mountExtensions"]["idmap"]["enabled"]
        bundle.create("--pid-file", str(tmp_path / "pid"))
        bundle.must("start", bundle.id)
        assert bundle.state()["status"] == "running"
        process = tmp_path / "process"
        process.write_text(json.dumps({**bundle.process, "args": ["true"]}))
        bundle.must("exec", "--process", str(process), bundle.id)
        bundle.must("exec", "-d", "--pid-file", str(tmp_path / "e"), "--process", str(process), bundle.id,
                    capture_output=False)  # fmt: skip
        assert (tmp_path / "e").read_text().isdecimal()
        bundle.must("update", "--resources", "-", bundle.id, input='{"memory":{"limit":67108864}}', stdin=None)
        bundle.must("pause", bundle.id)
        bundle.must("resume", bundle.id)
        bundle.must("kill", bundle.id, "15")
        bundle.must("kill", bundle.id, "KILL")
        bundle.wait()
        bundle.must("delete", "--force", bundle.id)
        assert "systemd" in bundle.call("--systemd-cgroup", "state", bundle.id).stderr
    finally:
        bundle.clean_up()
