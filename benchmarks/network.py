"""Throughput and connections per second through proa's networks and docker's, in one run, alternating.

usage: network.py ROOTFS.tar [--rounds 5] [--seconds 3] [--attach 200]

Needs root, ip, iperf3 and dockerd. Each engine has a host of its own, a network namespace, and another as the client
outside; so docker's iptables rules are its own, and the machine's stay as they are. Traffic goes between two containers
of one network, from outside to a published port, and from the host's 127.0.0.1 and ::1 to it. On a busy machine the
throughput for a second of the two iperf3's processor time says more than the throughput. `--attach` starts that many
containers on one network and compares the first starts with the last.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROA = str(Path(sys.executable).with_name("proa"))
PORT, PUBLISHED = 5201, 15201
OUTSIDE, HOST = "192.0.2.2", "192.0.2.1"
SERVER = """
import socket
s = socket.create_server(("0.0.0.0", 5202), backlog=512)
while True:
    c, _ = s.accept()
    c.recv(1)
    c.close()
"""
CLIENT = """
import socket, sys, time
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
count, began = 0, time.perf_counter()
while time.perf_counter() - began < seconds:
    with socket.create_connection((address, port)) as c:
        c.sendall(b"x")
        c.recv(1)
    count += 1
print(count / (time.perf_counter() - began))
"""


class Engine:
    """One engine in a network namespace of its own, with a client's namespace beside it."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.host, self.client = f"bench{os.getpid()}-{name}", f"bench{os.getpid()}-{name}-c"
        self._directory = directory / name
        self._directory.mkdir()
        for space in (self.host, self.client):
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
        _ip(
            "link",
            "add",
            f"bh{os.getpid()}",
            "netns",
            self.host,
            "type",
            "veth",
            "peer",
            f"bc{os.getpid()}",
            "netns",
            self.client,
        )
        for space, link, address in ((self.host, f"bh{os.getpid()}", HOST), (self.client, f"bc{os.getpid()}", OUTSIDE)):
            _ip("-n", space, "address", "add", f"{address}/24", "dev", link)
            _ip("-n", space, "link", "set", link, "up")
        self._daemon: subprocess.Popen[bytes] | None = None
        self._environment = dict(os.environ)
        if name == "proa":
            self._command = [PROA]
            self._environment |= {
                "PROA_ROOT": f"{self._directory}/root",
                "PROA_RUN": f"{self._directory}/run",
                "HOME": str(directory),
            }
        else:
            self._command = ["docker", "-H", f"unix://{self._directory}/d.sock"]
            self._start_docker()

    def _start_docker(self) -> None:
        place = self._directory
        (place / "none.json").write_text("{}")
        command = ["dockerd", "--host", f"unix://{place}/d.sock", "--data-root", f"{place}/data"]
        command += ["--exec-root", f"{place}/exec", "--pidfile", f"{place}/pid", "--config-file", f"{place}/none.json"]
        log = (place / "log").open("wb")
        self._daemon = subprocess.Popen(self._inside(self.host, command), stdout=log, stderr=log)
        for _ in range(300):
            if self.run("version", check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise SystemExit((place / "log").read_text()[-2000:])

    @staticmethod
    def _inside(space: str, command: list[str]) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{space}", *command]

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of the engine's."""
        done = subprocess.run(
            self._inside(self.host, [*self._command, *words]), capture_output=True, text=True, env=self._environment
        )
        if check and done.returncode:
            raise SystemExit(f"{self.name} {words}: {done.stderr}")
        return done

    def containers(self, rootfs: str) -> None:
        """`server` and `client` on one network."""
        self.run("import", rootfs, "bench")
        self.run("network", "create", "net")
        ports = ("-p", f"{PUBLISHED}:{PORT}", "-p", f"{PUBLISHED + 1}:{PORT + 1}")
        self.run("run", "-d", "--name", "server", "--network", "net", *ports, "bench", "sleep", "100000")
        self.run("run", "-d", "--name", "client", "--network", "net", "bench", "sleep", "100000")
        self.pids = {n: self.run("inspect", "-f", "{{.State.Pid}}", n).stdout.strip() for n in ("server", "client")}
        self.address = self.run("inspect", "-f", "{{.NetworkSettings.Networks.net.IPAddress}}", "server").stdout.strip()
        self._servers = [
            subprocess.Popen(["nsenter", "-t", self.pids["server"], "-n", *words], stdout=subprocess.DEVNULL)
            for words in (["iperf3", "-s"], [sys.executable, "-I", "-S", "-c", SERVER])
        ]
        time.sleep(0.5)

    def _from(self, where: str) -> tuple[list[str], str, int]:
        if where == "container":
            return ["nsenter", "-t", self.pids["client"], "-n"], self.address, PORT
        if where == "outside":
            return self._inside(self.client, []), HOST, PUBLISHED
        return self._inside(self.host, []), "::1" if where == "loopback6" else "127.0.0.1", PUBLISHED

    def throughput(self, where: str, seconds: int) -> tuple[float, float]:
        """Gbit/s of one TCP stream, and Gbit for a second of both ends' processor time."""
        prefix, address, port = self._from(where)
        command = [*prefix, "iperf3", "-J", "-c", address, "-p", str(port), "-t", str(seconds)]
        for _ in range(5):
            done = subprocess.run(command, capture_output=True, text=True)
            end = json.loads(done.stdout)["end"]
            if "sum_received" in end:
                break
            time.sleep(0.5)  # the server was not done with the one before
        rate = float(end["sum_received"]["bits_per_second"]) / 1e9
        used = end["cpu_utilization_percent"]
        return rate, rate / ((used["host_total"] + used["remote_total"]) / 100)

    def connections(self, where: str, seconds: int) -> tuple[float]:
        """Connections per second: open, a byte, closed by the server."""
        prefix, address, port = self._from(where)
        command = [*prefix, sys.executable, "-I", "-S", "-c", CLIENT, address, str(port + 1), str(seconds)]
        return (float(subprocess.run(command, capture_output=True, text=True, check=True).stdout),)

    def close(self) -> None:
        for server in getattr(self, "_servers", ()):
            server.kill()
            server.wait()
        ids = self.run("ps", "-aq", check=False).stdout.split()
        if ids:
            self.run("rm", "-f", *ids)
        self.run("network", "rm", "net", check=False)
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(30)
        else:
            self.run("system", "stop", check=False)
        for space in (self.host, self.client):
            _ip("netns", "delete", space)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            point = line.split()[4]
            if point.startswith(f"{self._directory}/"):
                subprocess.run(["umount", "-l", point], check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def engines(names: list[str]) -> Iterator[list[Engine]]:
    """The engines that are installed."""
    with tempfile.TemporaryDirectory(prefix="bnet-") as directory:
        made: list[Engine] = []
        try:
            for name in names:
                engine = Engine(name, Path(directory))
                made.append(engine)
            yield made
        finally:
            for engine in made:
                engine.close()


def attach_times(engine: Engine, count: int) -> tuple[float, float]:
    """Medians of the first and of the last tenth of `count` starts on one network, in milliseconds of the command."""
    samples = []
    for number in range(count):
        name = f"many{number}"
        engine.run("create", "--name", name, "--network", "net", "bench", "sleep", "100000")
        began = time.perf_counter()
        engine.run("start", name)
        samples.append((time.perf_counter() - began) * 1e3)
    part = max(1, count // 10)
    return statistics.median(samples[:part]), statistics.median(samples[-part:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rootfs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--attach", type=int, default=0)
    asked = parser.parse_args()
    names = ["proa"] + (["docker"] if shutil.which("dockerd") else [])
    rootfs = str(Path(asked.rootfs).resolve())
    with engines(names) as made:
        for engine in made:
            engine.containers(rootfs)
        for what, units in (("throughput", ("Gbit/s", "Gbit/CPU s")), ("connections", ("1/s",))):
            for where in ("container", "outside", "loopback", "loopback6"):
                samples: dict[str, list[tuple[float, ...]]] = {engine.name: [] for engine in made}
                for _ in range(asked.rounds):
                    for engine in random.sample(made, len(made)):
                        samples[engine.name].append(getattr(engine, what)(where, asked.seconds))
                for number, unit in enumerate(units):
                    medians = {name: statistics.median(v[number] for v in values) for name, values in samples.items()}
                    ratio = f"  ratio {medians['proa'] / medians['docker']:.2f}" if "docker" in medians else ""
                    shown = "  ".join(f"{name} {value:9.1f}" for name, value in medians.items())
                    print(f"{what:12} {where:10} {shown} {unit}{ratio}", flush=True)
        if asked.attach:
            for engine in made:
                first, last = attach_times(engine, asked.attach)
                print(f"start {asked.attach} on one network, {engine.name}: first {first:.1f} ms, last {last:.1f} ms")


if __name__ == "__main__":
    socket.setdefaulttimeout(60)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left
    main()
