"""Load hostile archives in a process of its own, one JSON line each: usage hostile_program.py DIRECTORY MEMORY CPU.

MEMORY and CPU are cgroups made for it, of version 1 or 2. After a good archive has warmed everything up, the limit
becomes what is in use and 64 MiB, so a case that needs more is killed.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import hostile_archives
from layer_archives import read_tree
from oci_images import Image

from proa.errors import ProaError
from proa.storage import Storage, lock_root
from proa.transfer import load

HEADROOM = 64 << 20


def limit(cgroup: Path) -> None:
    """Whatever is not page cache now, and HEADROOM."""
    stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    old = (cgroup / "memory.limit_in_bytes").exists()
    used = int(stat["total_rss" if old else "anon"])
    if old:
        used += int((cgroup / "memory.kmem.usage_in_bytes").read_text())
    (cgroup / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(used + HEADROOM))


def spent(cgroup: Path) -> float:
    """Seconds of processor time of this process and its workers."""
    if (cgroup / "cpuacct.usage").exists():
        return int((cgroup / "cpuacct.usage").read_text()) / 1e9
    return int((cgroup / "cpu.stat").read_text().split()[1]) / 1e6


def main(directory: Path, memory: Path, processor: Path) -> None:
    for cgroup in {memory, processor}:
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    canary = directory / "canary"
    canary.mkdir()
    (canary / "file").write_bytes(b"precious")
    before = read_tree(canary)
    cases = [(*case, False) for case in hostile_archives.documents()]
    cases += hostile_archives.layers(os.fsencode(canary))
    root = directory / "root"
    with lock_root(root), Storage.open(root) as storage:
        for how in ("gzip", "zstd"):
            load(storage, io.BytesIO(Image(hostile_archives.GOOD, how=how).archive(f"good/{how}:1")))
        limit(memory)
        for name, data, contained in cases:
            began, cpu = time.monotonic(), spent(processor)
            try:
                load(storage, io.BytesIO(data))
                outcome, message = "loaded", ""
            except ProaError as error:
                outcome, message = type(error).__name__, error.message
            seconds, cpu = time.monotonic() - began, spent(processor) - cpu
            untouched = read_tree(canary) == before
            print(json.dumps([name, contained, outcome, message, seconds, cpu, untouched]), flush=True)
            for image in list(storage.images.walk()):
                if "hostile" in image.name or image.name.startswith("sha256:"):
                    storage.images.delete(image.name)
            storage.collect(keep_interrupted_s=0)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
