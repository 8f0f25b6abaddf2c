"""The API under load: 1,000 requests a second of `GET /containers/json`, and 500 idle streams, beside docker.

usage: api_load.py ROOTFS.tar [--containers 100] [--connections 50] [--rate 1000] [--seconds 10] [--streams 500]

As root, with Debian's docker.io for the comparison; each engine has a root and socket of its own in a fresh directory.
Requests are sent at fixed times, whatever the answers take: the latency of a late answer counts from when its request
was due, so a server that stalls cannot hide it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROA = str(Path(sys.executable).with_name("proa"))
REQUEST = b"GET /v1.41/containers/json HTTP/1.1\r\nHost: bench\r\n\r\n"


class Server:
    """An engine to measure: how to command it, its socket, and whose memory is its."""

    def __init__(self, name: str, command: list[str], socket: str, env: dict[str, str], words: tuple[str, ...]) -> None:
        self.name, self.command, self.socket, self.env, self.words = name, command, socket, env, words

    def call(self, *arguments: str) -> str:
        return subprocess.run(
            [*self.command, *arguments], env=self.env, check=True, capture_output=True, text=True
        ).stdout

    def pss_mib(self) -> float:
        """Memory of the engine's own processes, MiB PSS."""
        total = 0
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    command = Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                    if any(word in command for word in self.words) and "api_load" not in command:
                        text = Path(f"/proc/{entry}/smaps_rollup").read_text()
                        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
                except OSError:
                    continue
        return total / 1024


async def _answer(reader: asyncio.StreamReader) -> int:
    """Read one reply; returns its body's length."""
    length, chunked = 0, False
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "content-length":
            length = int(value)
        chunked = chunked or (name.lower() == "transfer-encoding" and "chunked" in value)
    if not chunked:
        return len(await reader.readexactly(length))
    total = 0
    while size := int(await reader.readline(), 16):
        total += len(await reader.readexactly(size + 2)) - 2
    await reader.readline()
    return total


async def latencies(server: Server, rate: int, connections: int, seconds: float) -> list[float]:
    """Milliseconds from when each request was due to its last byte."""
    found: list[float] = []
    begin = time.perf_counter() + 0.5
    count = int(rate * seconds)

    async def client(first: int) -> None:
        reader, writer = await asyncio.open_unix_connection(server.socket, limit=1 << 20)
        for number in range(first, count, connections):
            due = begin + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(REQUEST)
            assert await _answer(reader) > 100
            found.append((time.perf_counter() - due) * 1e3)
        writer.close()

    await asyncio.gather(*(client(n) for n in range(connections)))
    return sorted(found)


async def hold_streams(server: Server, container: str, count: int) -> float:
    """MiB that `count` idle streams cost, half of them events, half attached to a container."""
    before = server.pss_mib()
    held = []
    for number in range(count):
        reader, writer = await asyncio.open_unix_connection(server.socket)
        if number % 2:
            writer.write(b"GET /events HTTP/1.1\r\nHost: bench\r\n\r\n")
        else:
            path = f"/containers/{container}/attach?stream=1&stdout=1&stderr=1"
            head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            writer.write(head.encode() + b"Content-Length: 0\r\n\r\n")
        await reader.readline()
        held.append(writer)
    await asyncio.sleep(1)
    after = server.pss_mib()
    print(f"{server.name:8} {count} idle streams: {before:.0f} -> {after:.0f} MiB PSS")
    for writer in held:
        writer.close()
    return after


def measure(server: Server, rootfs: str, options: argparse.Namespace) -> dict[str, float]:
    server.call("import", rootfs, "bench/base")
    names = [f"load{n}" for n in range(options.containers)]
    for name in names:
        server.call("run", "-d", "--network", "none", "--name", name, "bench/base", "sleep", "100000")
    asyncio.run(latencies(server, options.rate, options.connections, 2))  # warm
    found = asyncio.run(latencies(server, options.rate, options.connections, options.seconds))
    result = {
        "p50": statistics.median(found),
        "p99": found[int(len(found) * 0.99)],
        "worst": found[-1],
    }
    result["streams_mib"] = asyncio.run(hold_streams(server, names[0], options.streams))
    print(f"{server.name:8} " + "  ".join(f"{key} {value:.1f}" for key, value in result.items()))
    for start in range(0, len(names), 20):
        server.call("rm", "-f", *names[start : start + 20])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rootfs")
    for name, default in (("containers", 100), ("connections", 50), ("rate", 1000), ("seconds", 10), ("streams", 500)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="api-load-"))
    results = {}
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PROA_", "DOCKER_"))}
    env |= {"PROA_ROOT": f"{place}/root", "PROA_RUN": f"{place}/run"}
    proa = Server("proa", [PROA], f"{place}/run/engine.sock", env, (f"{place}/root", "proa nursery", "proa monitor"))
    try:
        results["proa"] = measure(proa, options.rootfs, options)
    finally:
        proa.call("system", "stop")
    if shutil.which("dockerd"):
        host = f"unix://{place}/docker.sock"
        argv = ["dockerd", "-H", host, "--data-root", f"{place}/docker", "--exec-root", f"{place}/exec"]
        argv += ["--pidfile", f"{place}/pid", "--iptables=false", "--bridge=none"]
        with open(place / "log", "wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as daemon:
            docker = Server("docker", ["docker", "-H", host], f"{place}/docker.sock", env, ("dockerd", "containerd"))
            try:
                for _ in range(200):
                    if subprocess.run([*docker.command, "version"], capture_output=True, check=False).returncode == 0:
                        break
                    time.sleep(0.1)
                results["docker"] = measure(docker, options.rootfs, options)
            finally:
                daemon.terminate()
                daemon.wait(30)
    print(json.dumps(results))
    subprocess.run(["rm", "-rf", "--one-file-system", str(place)], check=False)


if __name__ == "__main__":
    main()
