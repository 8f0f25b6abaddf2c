"""Five verbs of `proa-runtime` as separate processes (create, state, start, kill, delete), beside runc and crun.

    python benchmarks/verbs.py [ROUNDS]

One bundle with busybox's sleep; the runtimes take turns, so that what else runs on the machine strikes all. Medians of
whole commands in milliseconds, and the processor time of each command with all it waited for.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VERBS = ("create", "state", "start", "kill", "delete")


def make_bundle(directory: Path) -> None:
    (directory / "rootfs/bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", directory / "rootfs/bin/sleep")
    caps = ["CAP_KILL", "CAP_NET_BIND_SERVICE"]
    secure = ["nosuid", "noexec", "nodev"]
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sleep", "100"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*secure, "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/bus"],
            "resources": {"devices": [{"allow": False, "access": "rwm"}], "pids": {"limit": 100}},
        },
    }
    (directory / "config.json").write_text(json.dumps(config))


class Runtime:
    """One runtime, and how long its verbs took: wall and processor seconds."""

    def __init__(self, name: str, command: list[str], bundle: Path) -> None:
        self.name = name
        self.command = command
        self.bundle = bundle
        self.wall: dict[str, list[float]] = {verb: [] for verb in VERBS}
        self.cpu: dict[str, list[float]] = {verb: [] for verb in VERBS}

    def verb(self, verb: str, *arguments: str) -> None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(
            [*self.command, verb, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        self.wall[verb].append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu[verb].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def round(self, number: int) -> None:
        name = f"proa-verbs-{os.getpid()}-{number}"
        pid_file = self.bundle / "pid"
        self.verb("create", "--bundle", str(self.bundle), "--pid-file", str(pid_file), name)
        pidfd = os.pidfd_open(int(pid_file.read_text()))
        self.verb("state", name)
        self.verb("start", name)
        self.verb("kill", name, "KILL")
        while os.path.exists(f"/proc/{pid_file.read_text()}/exe") and os.access(f"/proc/{pid_file.read_text()}/exe", 0):
            time.sleep(0.001)
        os.close(pidfd)
        time.sleep(0.02)
        self.verb("delete", name)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    base = Path(tempfile.mkdtemp(prefix="proa-verbs-"))
    try:
        make_bundle(base)
        ours = shutil.which("proa-runtime", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        assert ours is not None
        found = {"proa-runtime": ours, "runc": shutil.which("runc"), "crun": shutil.which("crun")}
        runtimes = [
            Runtime(name, [path, "--root", str(base / name)], base) for name, path in found.items() if path is not None
        ]
        for number in range(rounds + 1):
            for runtime in list(runtimes):
                try:
                    runtime.round(number)
                except subprocess.CalledProcessError:
                    sys.stderr.write(f"{runtime.name} does not run here\n")
                    runtimes.remove(runtime)
        print(f"{'':14}" + "".join(f"{verb:>9}" for verb in (*VERBS, "sum")))
        for what in ("wall", "cpu"):
            for runtime in runtimes:
                times = [statistics.median(getattr(runtime, what)[verb][1:]) * 1000 for verb in VERBS]
                print(f"{runtime.name:14}" + "".join(f"{t:9.1f}" for t in (*times, sum(times))) + f"  ms {what}")
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
