"""A start in a warm process by the SDK, beside the same system calls in C (`start.c`).

    python benchmarks/warm_start.py [ROUNDS]

The SDK creates and starts a container of busybox without network, waits for `true` in it and removes it, all in one
request to an engine that runs already. The two take turns in small batches. Needs cc and busybox-static.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH = 5


def cgroup_hierarchies() -> list[str]:
    """Those of version 1 that a container gets a cgroup in."""
    base = Path("/sys/fs/cgroup")
    names = ("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids")
    return [str(base / name) for name in names if (base / name / "tasks").exists()]


def seccomp_filter() -> bytes:
    """What a container gets without options, as packed sock_filter records."""
    from proa.runtime import defaults, seccomp
    from proa.runtime.check import capability_sets
    from proa.runtime.spec import Capabilities

    kept = capability_sets(Capabilities(bounding=list(defaults.CAPABILITIES))).bounding
    return seccomp.default_filter(kept).program


def make_root(directory: Path) -> None:
    for name in ("bin", "dev", "proc", "sys", "etc", "tmp"):
        (directory / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", directory / "bin/true")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    base = Path(tempfile.mkdtemp(prefix="proa-warm-"))
    os.environ |= {"PROA_ROOT": f"{base}/data", "PROA_RUN": f"{base}/run"}
    os.environ.pop("PROA_HOST", None)
    import proa

    proa_command = shutil.which("proa", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert proa_command is not None
    try:
        program = base / "start"
        source = Path(__file__).with_name("start.c")
        subprocess.run(["cc", "-O2", "-Wall", "-Wno-format-truncation", "-o", str(program), str(source)], check=True)
        make_root(base / "root")
        (base / "scratch/root").mkdir(parents=True)
        image = base / "image.tar"
        subprocess.run(["tar", "-C", str(base / "root"), "-cf", str(image), "."], check=True)
        subprocess.run([proa_command, "import", str(image), "small"], check=True, stdout=subprocess.DEVNULL)
        filter_file = base / "filter"
        filter_file.write_bytes(seccomp_filter())
        command = [str(program), str(BATCH), str(base / "root"), str(base / "scratch"), str(filter_file)]
        command += cgroup_hierarchies()
        in_c: list[float] = []
        in_sdk: list[float] = []
        with proa.connect() as engine:
            for number in range(-1, rounds // BATCH):  # the first batch warms up
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                of_sdk = []
                for _ in range(BATCH):
                    start = time.perf_counter()
                    result = engine.containers.run("small", ["/bin/true"], network="none")
                    of_sdk.append((time.perf_counter() - start) * 1000)
                    assert result.exit_code == 0
                    time.sleep(0.05)  # the engine readies the next monitor
                if number >= 0:
                    in_c += [int(line) / 1000 for line in done.stdout.split()]
                    in_sdk += of_sdk
        for name, times in (("C", in_c), ("SDK", in_sdk)):
            quarters = statistics.quantiles(times, n=4)
            print(
                f"{name:4} median {statistics.median(times):6.1f} ms, quarters {quarters[0]:.1f} to {quarters[2]:.1f}"
            )
        print(f"ratio {statistics.median(in_sdk) / statistics.median(in_c):.2f}")
    finally:
        subprocess.run([proa_command, "system", "stop"], check=False)
        subprocess.run(["rm", "-rf", "--one-file-system", str(base)], check=False)


if __name__ == "__main__":
    main()
