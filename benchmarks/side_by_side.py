"""The same whole commands through proa and the peers that are installed, alternating, medians in milliseconds.

usage: side_by_side.py ROOTFS.tar [--rounds 10] [--engines proa,docker,podman]

Needs root. Docker's daemon is started on a socket and a data root of its own and stopped by pid. Ratios are what
counts; run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

IMAGE = "localhost/bench:1"


class Peer:
    """One engine's command line, with an environment of its own."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        self.name = name
        self.command = command
        self.environment = {**os.environ, **(environment or {})}

    def call(self, *arguments: str, check: bool = True) -> None:
        """Run one command to its end."""
        done = subprocess.run([*self.command, *arguments], env=self.environment, capture_output=True, check=False)
        if check and done.returncode:
            raise SystemExit(f"{self.name} {' '.join(arguments)}: {done.stderr.decode(errors='replace')[-400:]}")

    def timed(self, *arguments: str) -> float:
        """Milliseconds of one whole command."""
        began = time.perf_counter()
        self.call(*arguments)
        return (time.perf_counter() - began) * 1e3


@contextlib.contextmanager
def docker_daemon(state: Path, *extra: str) -> Iterator[Peer]:
    """A private dockerd; `extra` are options."""
    socket = f"unix://{state}/docker.sock"
    options = [
        *extra,
        "--data-root",
        f"{state}/docker",
        "--exec-root",
        f"{state}/docker-exec",
        "--pidfile",
        f"{state}/docker.pid",
    ]
    with open(state / "dockerd.log", "wb") as log:
        daemon = subprocess.Popen(["dockerd", *options, "-H", socket], stdout=log, stderr=log)
    peer = Peer("docker", ["docker", "-H", socket])
    try:
        for _ in range(150):
            if not subprocess.run([*peer.command, "version"], capture_output=True, check=False).returncode:
                break
            time.sleep(0.2)
        yield peer
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)


def alternate(peers: list[Peer], rounds: int, work: Callable[[Peer, int], float]) -> dict[str, float]:
    """Median of `rounds` for each peer after one that does not count, A B C A B C."""
    samples: dict[str, list[float]] = {p.name: [] for p in peers}
    for i in range(rounds + 1):
        for peer in peers:
            value = work(peer, i)
            if i:
                samples[peer.name].append(value)
    return {name: statistics.median(values) for name, values in samples.items()}


def exec_time(peers: list[Peer], rounds: int) -> dict[str, float]:
    """`exec true` in a container that runs."""
    for peer in peers:
        peer.call("run", "-d", "--name", "bench-exec", "--network", "none", IMAGE, "/bin/sleep", "600")
    try:
        return alternate(peers, rounds, lambda p, _: p.timed("exec", "bench-exec", "/bin/true"))
    finally:
        for peer in peers:
            peer.call("rm", "-f", "bench-exec", check=False)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rootfs")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--engines", default="proa,docker,podman")
    options = parser.parse_args()
    wanted = [e for e in options.engines.split(",") if shutil.which("dockerd" if e == "docker" else e)]
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as name, contextlib.ExitStack() as stack:
        state = Path(name)
        peers = []
        if "proa" in wanted:
            environment = {"PROA_ROOT": f"{state}/proa", "PROA_RUN": f"{state}/proa-run"}
            peers.append(Peer("proa", ["proa"], environment))
            stack.callback(peers[-1].call, "system", "stop")
        if "docker" in wanted:
            peers.append(stack.enter_context(docker_daemon(state)))
        if "podman" in wanted:
            peers.append(Peer("podman", ["podman", "--root", f"{state}/podman", "--runroot", f"{state}/podman-run"]))
        for peer in peers:
            peer.call("import", options.rootfs, IMAGE)
        run = ["run", "--rm", "--network", "none", IMAGE, "/bin/true"]
        rows = {
            "run --rm --network none IMAGE true": alternate(peers, options.rounds, lambda p, _: p.timed(*run)),
            "exec CONTAINER true": exec_time(peers, options.rounds),
            "create, rm": alternate(peers, options.rounds, lambda p, i: _create(p, i)),
        }
        width = max(map(len, rows))
        print(" " * width, *[f"{p.name:>10}" for p in peers])
        for label, values in rows.items():
            print(f"{label:{width}}", *[f"{values[p.name]:10.1f}" for p in peers])


def _create(peer: Peer, number: int) -> float:
    container = f"bench-create-{number}"
    spent = peer.timed("create", "--name", container, "--network", "none", IMAGE, "/bin/true")
    return spent + peer.timed("rm", container)


if __name__ == "__main__":
    main()
