"""Clients that mean harm: refused or closed, the engine's memory stays flat, and others are served meanwhile."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root

HEAD = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
DEEP = b"[" * 1_000_000
HOSTILE = {
    "giant header": b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (8 << 20) + b"\r\n\r\n",
    "giant target": b"GET /" + b"a" * (8 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "giant length": HEAD + b"Content-Length: 99999999999\r\n\r\n",
    "endless chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 65536 + b"\r\n") * 100,
    "deep JSON": HEAD + b"Content-Length: %d\r\n\r\n" % len(DEEP) + DEEP,
    "two framings": HEAD
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /info HTTP/1.1\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
    "encoded dots": b"GET /containers/%2e%2e/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
}


def _rss_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def _say(path: Path, data: bytes) -> bytes:
    """Send it, as far as it is taken; the beginning of the answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(15)
        client.connect(str(path))
        try:
            client.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            return client.recv(4096)
        except ConnectionResetError:
            return b""


def test_hostile_clients_harm_nobody(fresh: Any) -> None:
    fresh.start()
    for data in HOSTILE.values():  # once, so that what is loaded on demand is loaded
        _say(fresh.socket, data)
    slow = []
    for _ in range(100):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(fresh.socket))
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost:")
        slow.append(client)
    before = _rss_kib(fresh.pid)
    for name, data in HOSTILE.items():
        for _ in range(3):
            said = _say(fresh.socket, data)
            assert not said or (said[:7] == b"HTTP/1." and said[9:10] == b"4"), (name, said)
            assert said.count(b"HTTP/1.") <= 1, (name, said)
        began = time.monotonic()
        assert fresh.ask("GET", "/_ping") == (200, b"OK")
        assert time.monotonic() - began < 2, name
    assert _rss_kib(fresh.pid) - before < 24 << 10
    for client in slow:
        client.close()
