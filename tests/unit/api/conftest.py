"""A served API over a real unix socket, with a small engine of the test's own making."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from proa.api.accept import Acceptor
from proa.api.dispatch import dispatch
from proa.api.operations import ROUTES
from proa.api.routes import Route, Router
from proa.api.server import HttpServer
from proa.api.service import Service
from proa.api.sockets import scopes
from proa.api.sockets.audit import AuditLog
from proa.api.sockets.doors import Door
from proa.api.sockets.scopes import AREAS, Scope
from proa.api.sockets.tcp import TcpDoor, TcpListener
from proa.client.tls import Tls
from proa.client.tls_relay import secure
from proa.engine.events import Events


class Answer:
    """One HTTP reply, read from a socket."""

    def __init__(self, status: int, reason: str, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])


class Client:
    """A raw client: sends exactly what it is told."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(10)
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def close_write(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def head(self) -> Answer:
        """The next reply's head only."""
        while b"\r\n\r\n" not in self.buffer:
            assert self._more(), f"closed before the end of the head: {self.buffer!r}"
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        _, status, *reason = lines[0].split(" ", 2)
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
        return Answer(int(status), " ".join(reason), headers, b"")

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            assert self._more(), f"closed after {self.buffer!r}"
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            assert self._more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def chunk(self) -> bytes:
        """One chunk of a chunked body; empty at its end."""
        size = int(self.line(), 16)
        data = self.exactly(size + 2)
        return data[:-2]

    def answer(self, method: str = "GET") -> Answer:
        """A whole reply."""
        answer = self.head()
        if method == "HEAD" or answer.status in (204, 304):
            return answer
        if answer.headers.get("transfer-encoding") == "chunked":
            answer.body = b"".join(iter(self.chunk, b""))
        elif "content-length" in answer.headers:
            answer.body = self.exactly(int(answer.headers["content-length"]))
        else:
            answer.body = self.rest()
        return answer

    def rest(self) -> bytes:
        """Everything until the server closes."""
        while self._more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def ask(self, method: str, target: str, body: bytes = b"", headers: Sequence[str] = ()) -> Answer:
        self.send(request(method, target, body, headers))
        return self.answer(method)


def request(method: str, target: str, body: bytes = b"", headers: Sequence[str] = ()) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: proa", *headers]
    if body or method not in ("GET", "HEAD"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Live:
    """A service on a socket, its loop in a thread.

    kind: "own", "scoped" (everything is allowed that ever is), or "tls" with the certificates of `pairs`.
    """

    def __init__(self, directory: str, engine: Any, routes: Sequence[Route], kind: str, pairs: Path) -> None:
        self.directory = Path(directory)
        self.path = f"{directory}/s"
        self.kind = kind
        self.pairs = pairs
        self.engine = engine
        self.stopped = threading.Event()
        self._router = Router((*routes, *ROUTES))
        self.loop = asyncio.new_event_loop()
        if kind == "tls":
            files = {"ca": "ca.pem", "certificate": "servercert.pem", "key": "serverkey.pem"}
            self._tls = TcpListener("127.0.0.1:0", **{word: f"{pairs}/{name}" for word, name in files.items()})
            self._listener = self._tls.bind()
            self.port = self._listener.getsockname()[1]
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(self.path)
            self._listener.listen(1024)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live")
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())
        self.loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self.service = Service(self.engine, stop=self.stopped.set)
        self.server = HttpServer(lambda r: dispatch(self._router, self.service, r))
        self.service.audit = AuditLog(self.directory / "audit.log")
        acceptor: Acceptor | TcpDoor
        if self.kind == "tls":
            acceptor = TcpDoor(self.server, self._tls)
            await acceptor.open(self._listener)
        else:
            door = Door("scoped", self.path, Scope(allow=AREAS), 4096) if self.kind == "scoped" else None
            acceptor = Acceptor(self.server, self._listener, door)
            acceptor.start()
        self._ready.set()
        await self._end.wait()
        await acceptor.close()
        await self.server.end(2)
        if isinstance(acceptor, TcpDoor):
            await acceptor.ended(2)
        self.service.pools.close()

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function in the loop's thread."""

        async def inside() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result(10)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def client(self) -> Client:
        return Client(self.connect())

    def connect(self) -> socket.socket:
        """A connected socket; with TLS the near end of a relay, which is as good."""
        if self.kind != "tls":
            connected = socket.socket(socket.AF_UNIX)
            connected.connect(self.path)
            return connected
        files = Tls(ca=f"{self.pairs}/ca.pem", certificate=f"{self.pairs}/cert.pem", key=f"{self.pairs}/key.pem")
        return secure(socket.create_connection(("127.0.0.1", self.port)), "127.0.0.1", files).socket

    def ask(self, method: str, target: str, body: bytes = b"", headers: Sequence[str] = ()) -> Answer:
        with self.client() as client:
            return client.ask(method, target, body, headers)

    def descriptors(self) -> int:
        return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def door(request: pytest.FixtureRequest) -> str:
    """Which kind of socket `serve` listens on; parametrized indirectly where it is to be every kind."""
    return str(getattr(request, "param", "own"))


@pytest.fixture
def serve(door: str, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Live]]:
    """Serve an engine (default: one with events only), with further routes (below /t, which scopes take for system)."""
    monkeypatch.setitem(scopes._BY_HEAD, "t", "system")
    running: list[Live] = []
    with tempfile.TemporaryDirectory(prefix="api") as directory:

        def start(engine: Any = None, routes: Sequence[Route] = ()) -> Live:
            place = Path(directory, str(len(running)))
            place.mkdir()
            live = Live(str(place), engine or SimpleNamespace(events=Events()), routes, door, pairs)
            running.append(live)
            return live

        yield start
        for live in running:
            live.close()
