"""A read-only registry that stops in the middle of a blob until told to go on, and notes what it was asked."""

from __future__ import annotations

import http.server
import json
import re
import threading

from oci_images import Image
from registries import Server, reply


class SlowRegistry:
    """Serves one image. `hold` maps digests to how many bytes of them are sent before `release` is called."""

    def __init__(self, image: Image, hold: dict[str, int] | None = None) -> None:
        self.image = image
        self.hold = hold or {}
        self.asked: list[tuple[str, int]] = []  # (digest, first byte) of every blob request
        self.held = threading.Event()
        self._go_on = threading.Event()
        self._server = Server(self._answer)
        self.reference = f"{self._server.host}/tests/slow:1"

    def requests_of(self, digest: str) -> list[int]:
        """The first byte of every request for this blob."""
        return [start for asked, start in self.asked if asked == digest]

    def release(self) -> None:
        """Hold nothing any more."""
        self.hold = {}
        self._go_on.set()

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        kind, _, name = handler.path.removeprefix("/v2/tests/slow/").partition("/")
        data = self.image.blobs.get(self.image.digest if name == "1" else name)
        if handler.path == "/v2/":
            return reply(handler, 200, b"{}")
        if data is None:
            return reply(handler, 404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        if kind == "manifests":
            return reply(handler, 200, data, Content_Type=json.loads(data)["mediaType"])
        found = re.fullmatch(r"bytes=([0-9]+)-", handler.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        self.asked.append((name, start))
        handler.send_response(206 if found else 200)
        if found:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        stop = self.hold.get(name, len(data))
        handler.wfile.write(data[start:stop])
        handler.wfile.flush()
        if stop < len(data):
            self.held.set()
            self._go_on.wait(60)
            handler.wfile.write(data[stop:])
        return None

    def close(self) -> None:
        """End it."""
        self.release()
        self._server.close()
