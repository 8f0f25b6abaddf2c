"""Many pulls at a time, pulls against removal, and a large pull that was cancelled: what the registry is asked for."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engines import PrivateEngine, until
from oci_images import OCI, Image, digest, tar
from registries import Server, reply

import proa

pytestmark = pytest.mark.root

CLIENTS = 20
SECONDS = 4.0
BUSYBOX = tar(("bin", None), ("bin/sh", Path("/bin/busybox").read_bytes()))


def blob_requests(server: Any) -> Counter[str]:
    return Counter(path for path in server.asked if "/blobs/" in path)


def test_twenty_clients_download_each_blob_once(engine: PrivateEngine, serve_blobs: Any) -> None:
    image = Image(BUSYBOX, *(tar((f"layer{n}", os.urandom(2 << 20))) for n in range(4)))
    slow = threading.Event()

    def dawdle(name: str, data: bytes) -> tuple[bytes, bool]:
        slow.wait(0.3)  # so that all clients are there before the first blob is
        return data, False

    server = serve_blobs(image.blobs, image.digest, image.root["mediaType"], dawdle)
    engine.proa("version")
    ready = threading.Barrier(CLIENTS)

    def pull(number: int) -> str:
        ready.wait(30)
        if number % 4 == 0:
            return "docker" if engine.docker("pull", "-q", server.reference).stdout else ""
        if number % 4 == 1:
            return engine.out("pull", "-q", server.reference)
        with proa.connect(engine.socket) as client:
            return client.images.pull(server.reference).id

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert all(pool.map(pull, range(CLIENTS)))
    asked = blob_requests(server)
    assert len(asked) == 6  # five layers and a config
    assert set(asked.values()) == {1}, asked
    assert engine.out("run", "--rm", "--network", "none", server.reference, "sh", "-c", "echo it runs") == "it runs"
    assert [p for p in engine.stored()["partial"] if "/" in p] == []


def test_pulls_against_removal_prune_and_collection(engine: PrivateEngine, serve_blobs: Any) -> None:
    """Whatever else happens: an image that can be named is whole, and what a container was made of stays."""
    shared = [BUSYBOX, tar(("one", os.urandom(300_000)))]
    images = [Image(*shared, tar(("own", os.urandom(200_000)), ("name", b"%d" % n))) for n in range(2)]
    servers = [serve_blobs(image.blobs, image.digest, image.root["mediaType"]) for image in images]
    names = [server.reference for server in servers]
    engine.proa("version")
    deadline = time.monotonic() + SECONDS
    done: Counter[str] = Counter()

    def loop(what: str, act: Callable[[proa.Client], None]) -> None:
        with proa.connect(engine.socket) as client:
            while time.monotonic() < deadline:
                try:
                    act(client)
                except (proa.NotFound, proa.Conflict):
                    done[f"{what} refused"] += 1
                else:
                    done[what] += 1

    def pull(number: int) -> Callable[[proa.Client], None]:
        return lambda client: void(client.images.pull(names[number]))

    def use(client: proa.Client) -> None:
        number = done["use"] % 2
        result = client.containers.run(
            names[number],
            ["sh", "-c", "read x < /name; echo $x; [ -s /own ] && [ -s /one ]"],
            network="none",
            pull="never",
        )
        assert (result.exit_code, result.stdout) == (0, b"%d\n" % number), result

    acts: list[tuple[str, Callable[[proa.Client], None]]] = [
        ("pull", pull(0)),
        ("pull", pull(1)),
        ("pull", pull(1)),
        ("use", use),
        ("use", use),
        ("rmi", lambda client: client.images.remove(names[done["rmi"] % 2], force=True)),
        ("prune", lambda client: void(client.images.prune(filters={"dangling": ["false"]}))),
    ]
    with ThreadPoolExecutor(len(acts)) as pool:
        for future in [pool.submit(loop, what, act) for what, act in acts]:
            future.result()
    assert min(done[what] for what in ("pull", "use", "rmi", "prune")) >= 1, done
    engine.proa("system", "check")
    for number, name in enumerate(names):
        engine.proa("pull", name)
        assert engine.out("run", "--rm", "--network", "none", name, "sh", "-c", "read x < /name; echo $x") == str(
            number
        )
    engine.proa("system", "prune", "-a", "-f")
    left = {kind: [name for name in found if "/" in name] for kind, found in engine.stored().items()}
    assert left == {kind: [] for kind in left}


def void(_: object) -> None:
    pass


class LargeRegistry:
    """One layer of 300 MB from a sparse file; counts what it has sent, and stops in the middle until `go_on`."""

    SIZE = 300_000_000
    STOP = 200_000_000

    def __init__(self, folder: Path) -> None:
        self._path = folder / "layer"
        file = tar(("bin", None), ("bin/sh", Path("/bin/busybox").read_bytes()))[:-1024].rstrip(b"\0")
        head = tar_header(file, self.SIZE)
        with self._path.open("wb") as out:
            out.write(head)
            out.truncate(len(head) + -(-self.SIZE // 512) * 512 + 1024)
        with self._path.open("rb") as layer:
            self.digest = "sha256:" + hashlib.file_digest(layer, "sha256").hexdigest()
        self.size = self._path.stat().st_size
        self.image = Image(b"", how="none", diff_ids=[self.digest])
        layers = [{"mediaType": f"{OCI}.layer.v1.tar", "digest": self.digest, "size": self.size}]
        manifest = json.dumps({**self.image.manifest, "layers": layers}).encode()
        self.manifest, self.blobs = manifest, {**self.image.blobs, digest(manifest): manifest}
        self.sent = 0
        self.starts: list[int] = []
        self.reached, self.go_on = threading.Event(), threading.Event()
        self._server = Server(self._answer)
        self.reference = f"{self._server.host}/tests/large:1"

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        kind, _, name = handler.path.removeprefix("/v2/tests/large/").partition("/")
        if handler.path == "/v2/":
            return reply(handler, 200, b"{}")
        if kind == "manifests":
            found = digest(self.manifest)
            return reply(
                handler, 200, self.manifest, Content_Type=f"{OCI}.manifest.v1+json", Docker_Content_Digest=found
            )
        if name != self.digest:
            return reply(handler, 200, self.blobs[name])
        asked = re.fullmatch(r"bytes=([0-9]+)-", handler.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        self.starts.append(start)
        handler.send_response(206 if asked else 200)
        handler.send_header("Content-Length", str(self.size - start))
        if asked:
            handler.send_header("Content-Range", f"bytes {start}-{self.size - 1}/{self.size}")
        handler.end_headers()
        with self._path.open("rb") as layer:
            layer.seek(start)
            while data := layer.read(1 << 20):
                handler.wfile.write(data)
                self.sent += len(data)
                if layer.tell() >= self.STOP and not self.go_on.is_set():
                    self.reached.set()
                    self.go_on.wait(60)
        return None

    def close(self) -> None:
        self.go_on.set()
        self._server.close()


def tar_header(front: bytes, size: int) -> bytes:
    """`front`, a tar without its end, and the header of a file of so many bytes."""
    import tarfile

    entry = tarfile.TarInfo("large")
    entry.size = size
    return front + bytes(-len(front) % 512) + entry.tobuf(tarfile.USTAR_FORMAT)


def transfers(engine: PrivateEngine) -> int:
    """How many transfers the engine has in hand."""
    return int(json.loads(ask(engine, "/proa/v1/status"))["Transfers"])


def ask(engine: PrivateEngine, path: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(engine.socket.removeprefix("unix://"))
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        return connection.makefile("rb").read().partition(b"\r\n\r\n")[2].decode()


@pytest.fixture
def large(tmp_path: Path) -> Iterator[LargeRegistry]:
    found = LargeRegistry(tmp_path)
    yield found
    found.close()


def test_a_cancelled_pull_of_300_mb_goes_on_where_it_stopped(engine: PrivateEngine, large: LargeRegistry) -> None:
    client = engine.popen("pull", large.reference)
    assert large.reached.wait(60)
    parts = engine.root / "content" / "ingests"
    most = large.STOP - (8 << 20)
    until(lambda: sum(p.stat().st_size for p in parts.rglob("*") if p.is_file()) > most, "what was sent to be written")
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=30)
    assert client.returncode == 130
    until(lambda: transfers(engine) == 0, "the engine to notice, though the registry says nothing")
    before = large.sent
    large.go_on.set()
    engine.proa("pull", large.reference)
    first, second = large.starts
    assert first == 0
    assert second > most, f"it went on at {second}"
    # At the server: what the first pull was sent, and from there to the end; what was on its way then comes twice.
    assert large.sent - before <= large.size - second + (1 << 20)
    assert large.sent < large.size + (16 << 20)
    assert engine.out("run", "--rm", "--network", "none", large.reference, "sh", "-c", "echo it runs") == "it runs"
