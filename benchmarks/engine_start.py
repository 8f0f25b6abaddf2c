"""How long a container takes inside a warm engine, without client and API: create, start, end and removal.

usage: engine_start.py ROOTFS.tar [ROUNDS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from proa.engine import Engine
from proa.engine.types import ContainerConfig, CreateRequest, HostConfig


def one(engine: Engine, network: str, *, auto_remove: bool) -> tuple[float, float, float]:
    """Seconds of create, start, and from the start's return to the end (and removal)."""
    began = time.perf_counter()
    config = ContainerConfig(image="bench", cmd=["true"], attach_stdout=True, attach_stderr=True)
    host = HostConfig(auto_remove=auto_remove, network_mode=network)
    container = engine.containers.create(CreateRequest(config=config, host=host)).id
    created = time.perf_counter()
    ended = engine.lifecycle.wait(container, "removed" if auto_remove else "next-exit")
    engine.lifecycle.start(container)
    started = time.perf_counter()
    ended.result(30)
    done = time.perf_counter()
    if not auto_remove:
        engine.containers.remove(container)
    return created - began, started - created, done - started


def main() -> None:
    """Print medians in milliseconds."""
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    with tempfile.TemporaryDirectory(prefix="proa-bench-") as name:
        base = Path(name)
        engine = Engine.open(base / "root", base / "run")
        try:
            with open(sys.argv[1], "rb") as f:
                engine.transfers.import_image(f, repository="bench")
            for network in ("none", "bridge"):
                for auto_remove in (True, False):
                    for _ in range(3):
                        one(engine, network, auto_remove=auto_remove)
                    samples = [one(engine, network, auto_remove=auto_remove) for _ in range(rounds)]
                    medians = [statistics.median(column) * 1e3 for column in zip(*samples, strict=True)]
                    label = f"{network}{' --rm' if auto_remove else ''}"
                    print(f"{label:12} create {medians[0]:6.2f}  start {medians[1]:6.2f}  end {medians[2]:6.2f} ms")
        finally:
            engine.close()
            subprocess.run(["rm", "-rf", "--one-file-system", str(base / "root"), str(base / "run")], check=True)


if __name__ == "__main__":
    main()
