"""Registries, token servers, a proxy that cuts connections, and images made from nothing."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import socket
import ssl
import subprocess
import tarfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DOCKER_REGISTRY = "/usr/bin/docker-registry"
USER, PASSWORD = "sailor", "Salt+Wind:1"
OCI = "application/vnd.oci.image"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer_tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o644, 1_600_000_000
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


class Image:
    """An image's blobs, built in memory; write() makes an OCI layout of it."""

    def __init__(self, layers: list[bytes], compression: str = "gzip", architecture: str = "amd64") -> None:
        self.blobs: dict[str, bytes] = {}
        self.layers = layers
        self.diff_ids = [digest(layer) for layer in layers]
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/bin/true"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
        }
        suffix = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}[compression]
        self.manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": self.add(json.dumps(config).encode(), f"{OCI}.config.v1+json"),
            "layers": [self.add(self.pack(layer, compression), f"{OCI}.layer.v1.tar{suffix}") for layer in layers],
        }
        self.root = self.add(json.dumps(self.manifest).encode(), f"{OCI}.manifest.v1+json")

    @property
    def digest(self) -> str:
        return str(self.root["digest"])

    @staticmethod
    def pack(layer: bytes, compression: str) -> bytes:
        if compression == "gzip":
            return gzip.compress(layer, 1, mtime=0)
        if compression == "zstd":
            import zstandard

            return zstandard.ZstdCompressor().compress(layer)
        return layer

    def add(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def write(self, path: Path, name: str = "latest") -> Path:
        folder = path / "blobs" / "sha256"
        folder.mkdir(parents=True)
        for key, data in self.blobs.items():
            (folder / key.partition(":")[2]).write_bytes(data)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        root = {**self.root, "annotations": {"org.opencontainers.image.ref.name": name}}
        (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
        return path


@pytest.fixture(scope="session")
def make_image() -> Callable[..., Image]:
    def make(count: int = 2, size: int = 20_000, compression: str = "gzip", seed: str = "", **more: Any) -> Image:
        layers = []
        for n in range(count):
            noise = b"".join(hashlib.sha256(f"{seed}{n}.{i}".encode()).digest() for i in range(size // 32))
            layers.append(layer_tar({f"file-{n}": noise, "shared": f"{seed} layer {n}".encode()}))
        return Image(layers, compression, **more)

    return make


@pytest.fixture(scope="session")
def image_of() -> type[Image]:
    return Image


class Registry:
    """A running docker-registry; with `tls` it is `localhost`, and speaks nothing else."""

    def __init__(
        self,
        folder: Path,
        auth: dict[str, Any] | None = None,
        *,
        tls: dict[str, Any] | None = None,
        delete: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.host = f"{'localhost' if tls else '127.0.0.1'}:{self.port}"
        config = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": delete}},
            "http": {"addr": f"127.0.0.1:{self.port}", **({"tls": tls} if tls else {})},
            "log": {"level": "error"},
            **({"auth": auth} if auth else {}),
        }
        (folder / "config.yml").write_text(json.dumps(config))
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [DOCKER_REGISTRY, "serve", str(folder / "config.yml")], stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/", timeout=5).close()
                return
            except urllib.error.HTTPError as e:
                e.close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"docker-registry did not start: {(folder / 'log').read_text()}")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.log.close()

    def put(self, image: Image, name: str = "proa/test:v1", **auth: str) -> str:
        """Put an image there by plain requests; returns the reference."""
        repository, _, tag = name.partition(":")
        for key, data in image.blobs.items():
            if key != image.digest:
                start = self.request("POST", f"/v2/{repository}/blobs/uploads/")
                self.request("PUT", f"{start.headers['Location']}&digest={key}", data)
        self.request("PUT", f"/v2/{repository}/manifests/{tag}", image.blobs[image.digest], image.root["mediaType"])
        return f"{self.host}/{name}"

    def request(self, method: str, path: str, data: bytes = b"", kind: str = "application/octet-stream") -> Any:
        url = path if path.startswith("http") else f"http://{self.host}{path}"
        request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    found = Registry(tmp_path_factory.mktemp("registry"))
    yield found
    found.close()


@pytest.fixture
def start_registry(tmp_path: Path) -> Iterator[Callable[..., Registry]]:
    started: list[Registry] = []

    def start(auth: dict[str, Any] | None = None, **options: Any) -> Registry:
        started.append(Registry(tmp_path / f"registry-{len(started)}", auth, **options))
        return started[-1]

    yield start
    for found in started:
        found.close()


@pytest.fixture(scope="session")
def registry_type() -> type[Registry]:
    return Registry


class Server:
    """An HTTP server in a thread whose replies a function decides; remembers what it was asked."""

    def __init__(self, answer: Callable[[http.server.BaseHTTPRequestHandler, bytes], None]) -> None:
        server = self
        self.asked: list[tuple[str, str, dict[str, str]]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
                answer(self, body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self._httpd.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients here hang up on purpose
        self.port = self._httpd.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def wrap(self, context: ssl.SSLContext) -> None:
        """From now on speak TLS."""
        self._httpd.socket = context.wrap_socket(self._httpd.socket, server_side=True, do_handshake_on_connect=False)

    def close(self) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join(10)


def reply(
    handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> None:
    handler.send_response(status)
    for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(key, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


@pytest.fixture
def send_reply() -> Callable[..., None]:
    return reply


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(answer: Callable[[http.server.BaseHTTPRequestHandler, bytes], None]) -> Server:
        started.append(Server(answer))
        return started[-1]

    yield start
    for found in started:
        found.close()


class FakeRegistry:
    """A read-only registry over an Image that misbehaves on request.

    token_realm: ask for Bearer tokens from there; basic: ask for USER and PASSWORD
    cut_after:   close the connection of a blob GET after so many bytes, `cuts` times
    ranges:      answer Range requests with 206 (else 200 and everything)
    """

    def __init__(self, start: Callable[..., Server], image: Image, repository: str = "proa/test", tag: str = "v1"):
        self.image, self.repository, self.tag = image, repository, tag
        self.token_realm = ""
        self.basic = False
        self.cut_after, self.cuts = 0, 0
        self.ranges = True
        self.delay_s = 0.0
        self.busy = 0
        self.busy_blobs = 0
        self.blob_gets: list[tuple[str, str]] = []
        self.sent: dict[str, int] = {}
        self.override: dict[str, bytes] = {}
        self.served_type: str | None = None
        self.server = start(self.answer)
        self.reference = f"{self.server.host}/{repository}:{tag}"

    def answer(self, handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        authorization = handler.headers.get("Authorization", "")
        if self.token_realm and not authorization.startswith("Bearer good"):
            scope = f"repository:{self.repository}:pull"
            value = f'Bearer realm="{self.token_realm}",service="fake",scope="{scope}"'
            return reply(handler, 401, b"{}", {"WWW-Authenticate": value})
        if self.basic and authorization != "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode():
            return reply(handler, 401, b"{}", {"WWW-Authenticate": 'Basic realm="fake"'})
        path, _, _ = handler.path.partition("?")
        if path == "/v2/":
            return reply(handler, 200, b"{}")
        if self.busy:
            self.busy -= 1
            return reply(handler, 503, b"busy", {"Retry-After": "0"})
        found = re.fullmatch(rf"/v2/{self.repository}/(manifests|blobs)/(.+)", path)
        name = found[2] if found else ""
        name = self.image.digest if name == self.tag else name
        data = self.override.get(name, self.image.blobs.get(name))
        if found is None or data is None:
            error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            return reply(handler, 404, json.dumps(error).encode(), {"Content-Type": "application/json"})
        if found[1] == "manifests":
            kind = self.served_type or self.kind(data)
            return reply(handler, 200, data, {"Content-Type": kind, "Docker-Content-Digest": name})
        return self.blob(handler, name, data)

    def kind(self, data: bytes) -> str:
        return str(json.loads(data).get("mediaType") or f"{OCI}.manifest.v1+json")

    def blob(self, handler: http.server.BaseHTTPRequestHandler, name: str, data: bytes) -> None:
        if self.busy_blobs:
            self.busy_blobs -= 1
            reply(handler, 429, b"busy", {"Retry-After": "0"})
            return
        wanted = handler.headers.get("Range", "")
        self.blob_gets.append((name, wanted))
        start = int(wanted[6:-1]) if wanted and self.ranges else 0
        time.sleep(self.delay_s)
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        part = data[start:]
        if self.cuts and self.cut_after and len(part) > self.cut_after:
            self.cuts -= 1
            handler.wfile.write(part[: self.cut_after])
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return
        self.sent[name] = self.sent.get(name, 0) + 1
        handler.wfile.write(part)


@pytest.fixture
def fake_registry(start_server: Callable[..., Server]) -> Callable[..., FakeRegistry]:
    def start(image: Image, **options: Any) -> FakeRegistry:
        return FakeRegistry(start_server, image, **options)

    return start


class TokenServer:
    """Gives the token `good…` to USER with PASSWORD (GET), or to whoever shows the refresh token `refresh` (POST)."""

    def __init__(self, start: Callable[..., Server], anonymous: bool = False) -> None:
        self.anonymous = anonymous
        self.server = start(self.answer)
        self.realm = f"http://{self.server.host}/token"
        self.forms: list[dict[str, list[str]]] = []

    def answer(self, handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        authorization = handler.headers.get("Authorization", "")
        allowed = self.anonymous and not authorization
        if handler.command == "POST":
            self.forms.append(urllib.parse.parse_qs(body.decode()))
            allowed = self.forms[-1].get("refresh_token") == ["refresh"]
        elif authorization:
            allowed = authorization == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if not allowed:
            return reply(handler, 401, b'{"details":"incorrect username or password"}')
        return reply(handler, 200, json.dumps({"token": f"good-{os.urandom(4).hex()}", "expires_in": 300}).encode())


@pytest.fixture
def token_server(start_server: Callable[..., Server]) -> Callable[..., TokenServer]:
    def start(**options: Any) -> TokenServer:
        return TokenServer(start_server, **options)

    return start


@pytest.fixture
def login() -> tuple[str, str]:
    return USER, PASSWORD


@pytest.fixture
def open_storage(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens data roots by name; closes them and checks that no partial or half-made snapshot is left."""
    from proa.storage import Storage

    opened: list[Storage] = []

    def make(name: str = "root") -> Storage:
        opened.append(Storage.open(tmp_path / name))
        return opened[-1]

    yield make
    for storage in opened:
        left = [s.key for s in storage.snapshots.walk() if s.kind != "committed"]
        storage.close()
        assert not left


@pytest.fixture
def storage(open_storage: Callable[..., Any]) -> Any:
    return open_storage()
