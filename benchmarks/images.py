"""Pull, load, push and commit through proa and the peers that are installed, each in a fresh directory, in seconds.

usage: images.py ROOTFS.tar [--rounds 3] [--engines proa,docker,podman] [--only pull,load,push,commit,memory]

Needs root, docker-registry and skopeo. Every sample is one whole command on an empty data root whose engine is up, so
nothing is found already there; peers alternate, and nothing is deleted before the end (half a GB a round). `memory`
pulls 1 GB and reports the highest resident size of the engine and of its unpack worker. Ratios are what counts; run it
on a quiet machine, with the data directory on the disk to measure (TMPDIR).
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard
from side_by_side import Peer, docker_daemon

OCI = "application/vnd.oci.image"
BUDGETS = {
    "pull gzip": 0.6,
    "pull zstd": 0.6,
    "load": 0.6,
    "load .gz": 0.6,
    "load .zst": 0.6,
    "push": 0.7,
    "commit 100 MB": 0.7,
}


def write_layout(directory: Path, layers: list[Path], compression: str) -> None:
    """An OCI layout of one image; `layers` are plain tars."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"{OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    diff_ids, descriptors = [], []
    for layer in layers:
        data = layer.read_bytes()
        diff_ids.append("sha256:" + hashlib.sha256(data).hexdigest())
        packed = gzip.compress(data, 6, mtime=0) if compression == "gzip" else zstandard.compress(data, 3)
        descriptors.append(add(packed, f"layer.v1.tar+{compression}"))
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin:/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": add(json.dumps(config).encode(), "config.v1+json"),
        "layers": descriptors,
    }
    root = add(json.dumps(manifest).encode(), "manifest.v1+json")
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))


def write_docker_archive(path: Path, rootfs: Path, name: str) -> None:
    """What `docker save` writes, with one layer."""
    data = rootfs.read_bytes()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest()]},
    }
    raw = json.dumps(config).encode()
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for member, content in (
            ("layer.tar", data),
            ("config.json", raw),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@contextlib.contextmanager
def registry(state: Path) -> Iterator[str]:
    """A docker-registry on loopback; its host:port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": f"{state}/registry"}},
        "log": {"level": "error"},
    }
    (state / "registry.yml").write_text(json.dumps({**config, "http": {"addr": host}}))
    with open(state / "registry.log", "wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", f"{state}/registry.yml"], stdout=log, stderr=log)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(host.split(":"), 1):
                break
            time.sleep(0.1)
        yield host
    finally:
        process.terminate()
        process.wait(20)


def publish(layout: Path, host: str, name: str) -> str:
    """Copy a layout into the registry as it is; the reference."""
    reference = f"{host}/{name}:1"
    subprocess.run(
        [
            "skopeo",
            "copy",
            "-q",
            "--preserve-digests",
            "--dest-tls-verify=false",
            f"oci:{layout}",
            f"docker://{reference}",
        ],
        check=True,
    )
    return reference


@contextlib.contextmanager
def fresh(engine: str, state: Path) -> Iterator[Peer]:
    """One engine on an empty data root, ready. What it leaves is deleted at the very end.

    ext4 makes files slowly for seconds after many were deleted: whoever came next would pay for that.
    """
    directory = Path(tempfile.mkdtemp(prefix=engine, dir=state))
    try:
        if engine == "docker":
            with docker_daemon(directory, "--bridge", "none", "--iptables=false", "--ip6tables=false") as peer:
                yield peer
        elif engine == "podman":
            yield Peer("podman", ["podman", "--root", f"{directory}/root", "--runroot", f"{directory}/run"])
        else:
            peer = Peer("proa", ["proa"], {"PROA_ROOT": f"{directory}/root", "PROA_RUN": f"{directory}/run"})
            peer.call("ps")
            try:
                yield peer
            finally:
                peer.call("system", "stop")
    finally:
        # podman mounts its storage on itself.
        subprocess.run(["umount", f"{directory}/root/overlay"], check=False, capture_output=True)


class Bench:
    """The engines to compare and the samples so far."""

    def __init__(self, engines: list[str], rounds: int, state: Path) -> None:
        self.engines, self.rounds, self.state = engines, rounds, state
        self.rows: dict[str, dict[str, float]] = {}

    def measure(self, label: str, work: Callable[[Peer], float], without: tuple[str, ...] = ()) -> None:
        """Median of `work`'s seconds for each engine, alternating, each in its turn the first."""
        samples: dict[str, list[float]] = {}
        for number in range(self.rounds):
            first = number % len(self.engines)
            for engine in (*self.engines[first:], *self.engines[:first]):
                if engine in without:
                    continue
                with fresh(engine, self.state) as peer:
                    os.sync()
                    try:
                        seconds = work(peer)
                    except SystemExit as error:
                        print(f"{label}: {engine} cannot: {str(error)[-160:]}")
                        without = (*without, engine)
                    else:
                        samples.setdefault(engine, []).append(seconds)
        self.rows[label] = {engine: statistics.median(values) for engine, values in samples.items() if values}
        self.show(label)

    def show(self, label: str) -> None:
        """One line: seconds, and proa's share of each peer's time."""
        row = self.rows[label]
        cells = [f"{row[e]:9.2f}" if e in row else f"{'-':>9}" for e in self.engines]
        ratios = [
            f"{row['proa'] / row[e]:.2f} of {e}" for e in self.engines if e != "proa" and e in row and "proa" in row
        ]
        budget = f"(budget {BUDGETS[label]})" if label in BUDGETS else ""
        print(f"{label:16}", *cells, "  ", ", ".join(ratios), budget, flush=True)


def insecure(peer: Peer) -> list[str]:
    """What podman wants to hear before it speaks http; the others do so on loopback."""
    return ["--tls-verify=false"] if peer.name == "podman" else []


def limits(peer: Peer) -> list[str]:
    """podman asks for more open files than root without CAP_SYS_RESOURCE may have."""
    return ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"] if peer.name == "podman" else []


def pulls(bench: Bench, layers: list[Path], host: str) -> None:
    for compression in ("gzip", "zstd"):
        layout = bench.state / f"layout-{compression}"
        write_layout(layout, layers, compression)
        reference = publish(layout, host, f"bench/{compression}")
        bench.measure(f"pull {compression}", lambda p, r=reference: p.timed("pull", *insecure(p), r) / 1e3)


def loads(bench: Bench, rootfs: Path) -> None:
    plain = bench.state / "image.tar"
    write_docker_archive(plain, rootfs, "bench:1")
    with open(plain, "rb") as source, gzip.open(f"{plain}.gz", "wb", 6) as packed:
        shutil.copyfileobj(source, packed)
    with open(plain, "rb") as source, open(f"{plain}.zst", "wb") as target:
        zstandard.ZstdCompressor(level=3).copy_stream(source, target)
    for label, path in (("load", plain), ("load .gz", f"{plain}.gz"), ("load .zst", f"{plain}.zst")):
        bench.measure(label, lambda p, file=str(path): p.timed("load", "-i", file) / 1e3)


def pushes(bench: Bench, rootfs: Path, host: str) -> None:
    number = iter(range(1000))

    def work(peer: Peer) -> float:
        # A repository and bytes of its own, or the registry would have the layer already.
        altered = bench.state / "altered.tar"
        shutil.copyfile(rootfs, altered)
        with tarfile.open(altered, "a") as tar:
            entry = tarfile.TarInfo("unique")
            entry.size = 16
            tar.addfile(entry, io.BytesIO(os.urandom(16)))
        name = f"{host}/bench/push{next(number)}:1"
        peer.call("import", str(altered), name)
        altered.unlink()
        os.sync()
        return peer.timed("push", *insecure(peer), name) / 1e3

    bench.measure("push", work)


def commits(bench: Bench, rootfs: Path) -> None:
    def work(peer: Peer) -> float:
        peer.call("import", str(rootfs), "localhost/bench:1")
        script = "dd if=/dev/urandom of=/change bs=1M count=100 2>/dev/null; sync; echo ok; exec sleep 600"
        peer.call(
            "run",
            "-d",
            "--name",
            "bench-commit",
            *limits(peer),
            "--network",
            "none",
            "localhost/bench:1",
            "/bin/sh",
            "-c",
            script,
        )
        try:
            while (
                "ok"
                not in subprocess.run(
                    [*peer.command, "logs", "bench-commit"],
                    env=peer.environment,
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            ):
                time.sleep(0.2)
            os.sync()
            return peer.timed("commit", "bench-commit", "localhost/committed:1") / 1e3
        finally:
            peer.call("rm", "-f", "bench-commit", check=False)

    bench.measure("commit 100 MB", work)


def resident_kib(pid: int) -> int:
    """The highest resident size so far."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def memory(state: Path, host: str) -> None:
    """Pull a 1 GB image of eight layers and say how large engine and workers grew."""
    layers = []
    for number in range(8):
        path = state / f"random{number}.tar"
        with tarfile.open(path, "w") as tar:
            entry = tarfile.TarInfo(f"random{number}")
            entry.size = 128 << 20
            with open("/dev/urandom", "rb") as source:
                tar.addfile(entry, source)
        layers.append(path)
    write_layout(state / "layout-big", layers, "gzip")
    reference = publish(state / "layout-big", host, "bench/big")
    for path in layers:
        path.unlink()
    with fresh("proa", state) as peer:
        engine = int(Path(peer.environment["PROA_ROOT"], "lock").read_text())
        before, workers, done = resident_kib(engine), {}, threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                for status in Path("/proc").glob("[0-9]*/comm"):
                    with contextlib.suppress(OSError):
                        if status.read_text().startswith("proa-unpack"):
                            pid = int(status.parent.name)
                            workers[pid] = max(workers.get(pid, 0), resident_kib(pid))

        thread = threading.Thread(target=watch)
        thread.start()
        seconds = peer.timed("pull", reference) / 1e3
        done.set()
        thread.join()
        print(
            f"pull of 1 GB: {seconds:.1f} s; engine {before >> 10} MiB before, {resident_kib(engine) >> 10} MiB at most"
            f" (budget 150); largest unpack process {max(workers.values(), default=0) >> 10} MiB"
        )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rootfs", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", default="proa,docker,podman")
    parser.add_argument("--only", default="pull,load,push,commit,memory")
    options = parser.parse_args()
    engines = [e for e in options.engines.split(",") if shutil.which("dockerd" if e == "docker" else e)]
    chosen = options.only.split(",")
    with tempfile.TemporaryDirectory(prefix="images-") as name, registry(Path(name)) as host:
        bench = Bench(engines, options.rounds, Path(name))
        print(" " * 16, *[f"{e:>9}" for e in engines])
        if "pull" in chosen:
            pulls(bench, [options.rootfs], host)
        if "load" in chosen:
            loads(bench, options.rootfs)
        if "push" in chosen:
            pushes(bench, options.rootfs, host)
        if "commit" in chosen:
            commits(bench, options.rootfs)
        if "memory" in chosen:
            memory(Path(name), host)


if __name__ == "__main__":
    main()
