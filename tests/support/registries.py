"""Real registries on loopback, and a server whose answers a test decides."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

DOCKER_REGISTRY = "/usr/bin/docker-registry"
USER, PASSWORD = "sailor", "Salt+Wind:1"
# bcrypt of PASSWORD, the only kind the registry reads.
HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuuGm93c9UeddkBqflxYjWSxVo8JS4oNg.\n"

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json"
)


class Registry:
    """A running docker-registry on a free port of loopback; with `login` it asks for USER and PASSWORD.

    auth: its configuration's member of that name, for other ways to ask
    """

    def __init__(
        self, folder: Path, *, login: bool = False, auth: dict[str, Any] | None = None, delete: bool = True
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        config: dict[str, Any] = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": delete}},
            "log": {"level": "error"},
        }
        if auth:
            config["auth"] = auth
        if login:
            (folder / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "proa", "path": str(folder / "htpasswd")}}
        for _ in range(5):  # another process may take the port between our look and the registry's bind
            if self._start(config):
                return
        raise AssertionError(f"docker-registry did not start: {(folder / 'log').read_text()}")

    def _start(self, config: dict[str, Any]) -> bool:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        path = self._folder / "config.yml"
        path.write_text(json.dumps({**config, "http": {"addr": self.host}}))
        with (self._folder / "log").open("wb") as log:
            self.process = subprocess.Popen([DOCKER_REGISTRY, "serve", str(path)], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://{self.host}/v2/", timeout=5).close()
                return True
            except urllib.error.HTTPError as e:
                e.close()
                return True
            except OSError:
                time.sleep(0.02)
        self.close()
        return False

    def manifest(self, repository: str, reference: str) -> tuple[bytes, str]:
        """A manifest's bytes and media type, asked for as clients do."""
        url = f"http://{self.host}/v2/{repository}/manifests/{reference}"
        with urllib.request.urlopen(
            urllib.request.Request(url, headers={"Accept": MANIFEST_TYPES}), timeout=10
        ) as reply:
            return reply.read(), reply.headers["Content-Type"]

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(20)


class Server:
    """An HTTP server in a thread whose replies a function decides."""

    def __init__(self, answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self._httpd.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients here hang up on purpose
        self.host = f"127.0.0.1:{self._httpd.server_address[1]}"
        self._thread = threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join(10)


def reply(handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    """One answer with its length; header names with _ for -."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    for key, value in headers.items():
        handler.send_header(key.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


class BlobServer:
    """A read-only registry over blobs in memory; `bad_blob` decides what a blob's GET sends.

    bad_blob(digest, data) -> (bytes to send, whether to hang up after them).
    """

    def __init__(
        self,
        blobs: dict[str, bytes],
        root: str,
        media_type: str,
        bad_blob: Callable[[str, bytes], tuple[bytes, bool]] | None = None,
    ) -> None:
        self._blobs, self._root, self._type, self._bad = blobs, root, media_type, bad_blob
        self.asked: list[str] = []
        self.server = Server(self._answer)
        self.reference = f"{self.server.host}/tests/image:v1"

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        kind, _, name = handler.path.removeprefix("/v2/tests/image/").partition("/")
        if handler.path == "/v2/":
            return reply(handler, 200, b"{}")
        name = self._root if name == "v1" else name
        data = self._blobs.get(name)
        if data is None or kind not in ("manifests", "blobs"):
            body = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            return reply(handler, 404, json.dumps(body).encode(), Content_Type="application/json")
        if kind == "manifests":
            media_type = json.loads(data).get("mediaType") or self._type
            return reply(handler, 200, data, Content_Type=media_type, Docker_Content_Digest=name)
        sent, hang_up = self._bad(name, data) if self._bad else (data, False)
        if not hang_up:
            return reply(handler, 200, sent)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(sent)
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True
        return None

    def close(self) -> None:
        """End it."""
        self.server.close()
