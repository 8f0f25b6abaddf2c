"""Clients that mean harm: refused or closed, the engine's memory stays flat, and others are served meanwhile."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import until

from proa.client.tls import Tls
from proa.client.tls_relay import secure

pytestmark = pytest.mark.root

PING = b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
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


def _connect(engine: Any, door: str, pairs: Path) -> socket.socket:
    """A client's connection; with TLS the near end of a relay."""
    if door == "tls":
        host, _, port = engine.address.partition(":")
        files = Tls(ca=f"{pairs}/ca.pem", certificate=f"{pairs}/cert.pem", key=f"{pairs}/key.pem")
        return secure(socket.create_connection((host, int(port))), host, files).socket
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(engine.socket if door == "own" else engine.directory / "scoped.sock"))
    return client


def _say(client: socket.socket, data: bytes) -> bytes:
    """Send it, as far as it is taken; the beginning of the answer."""
    with client:
        client.settimeout(15)
        try:
            client.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            return client.recv(4096)
        except ConnectionResetError:
            return b""


@pytest.fixture
def target(request: pytest.FixtureRequest, fresh: Any, pairs: Path) -> tuple[Any, Callable[[], socket.socket]]:
    """An engine, and how to connect to the kind of socket that is asked for."""
    if request.param == "tls":
        fresh.start(*fresh.tls_options(pairs))
    else:
        fresh.start()
    if request.param == "scoped":
        body = {"Path": str(fresh.directory / "scoped.sock"), "Scope": {"Allow": ["containers", "system"]}}
        status, said = fresh.ask("POST", "/proa/v1/sockets", json.dumps(body).encode())
        assert status == 201, said
    return fresh, lambda: _connect(fresh, request.param, pairs)


@pytest.mark.parametrize("target", ["own", "scoped", "tls"], indirect=True)
def test_hostile_clients_harm_nobody(target: tuple[Any, Callable[[], socket.socket]]) -> None:
    engine, connect = target
    for data in HOSTILE.values():  # once, so that what is loaded on demand is loaded
        _say(connect(), data)
    slow = []
    for _ in range(100):
        client = connect()
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost:")
        slow.append(client)
    before = _rss_kib(engine.pid)
    for name, data in HOSTILE.items():
        for _ in range(3):
            said = _say(connect(), data)
            assert not said or (said[:7] == b"HTTP/1." and said[9:10] == b"4"), (name, said)
            assert said.count(b"HTTP/1.") <= 1, (name, said)
        began = time.monotonic()
        assert engine.ask("GET", "/_ping") == (200, b"OK")
        assert time.monotonic() - began < 2, name
        assert _say(connect(), PING).endswith(b"OK")
    assert _rss_kib(engine.pid) - before < 40 << 10
    for client in slow:
        client.close()


def test_strangers_at_the_tls_port_keep_nobody_out(fresh: Any, pairs: Path) -> None:
    """Silent ones, such as speak slowly, and such as speak nonsense: they go, and clients with certificates come in."""
    fresh.start(*fresh.tls_options(pairs))
    host, _, port = fresh.address.partition(":")
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="x").do_handshake()
    opening = hello.read()
    assert _say(_connect(fresh, "tls", pairs), PING).endswith(b"OK")
    before = _rss_kib(fresh.pid)
    strangers = []
    for number in range(600):
        client = socket.create_connection((host, int(port)))
        if said := (b"", opening[:50], opening, opening[:5] + b"\0" * 200)[number % 4]:
            client.sendall(said)
        strangers.append(client)
        if number % 100 == 99:
            assert fresh.ask("GET", "/_ping") == (200, b"OK")
            assert _say(_connect(fresh, "tls", pairs), PING).endswith(b"OK")
    assert _rss_kib(fresh.pid) - before < 40 << 10
    for client in strangers:
        client.settimeout(30)
    for client in strangers[:400]:  # long before their ten seconds
        try:
            while client.recv(4096):
                pass
        except ConnectionResetError:
            pass
    for client in strangers:
        client.close()
    until(lambda: not _sockets_at(fresh.pid, int(port)), "the strangers' sockets to be closed")


def _sockets_at(pid: int, port: int) -> int:
    """How many connections of a TCP port are open, for whichever process: proc(5), /proc/PID/net/tcp."""
    rows = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return sum(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "01" for row in rows)
