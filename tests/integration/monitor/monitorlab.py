"""Containers under monitors: a nursery, requests as the engine makes them, clients, and what they say."""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from proa.monitor.client import MonitorConnection
from proa.monitor.nursery import Nursery
from proa.monitor.protocol import Attach
from proa.runtime import defaults

APPLETS = (
    *("sh", "cat", "echo", "sleep", "yes", "head", "tail", "true", "false", "ls", "ps", "stty", "tty", "kill", "dd"),
    *("wc", "sha256sum", "seq", "printf", "id", "test"),
)
_numbers = itertools.count()


class Lab:
    """A nursery and its containers; `close` ends whatever still runs."""

    def __init__(self, directory: Path, root: Path) -> None:
        self.directory = directory
        self.root = root
        self.nursery = Nursery.start(directory)
        self.connections: list[MonitorConnection] = []
        self.ids: list[str] = []
        self.sockets: list[socket.socket] = []

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """A client's socket (with a time-out) and the end for the monitor."""
        ours, theirs = socket.socketpair()
        ours.settimeout(10)
        self.sockets += (ours, theirs)
        return ours, theirs

    def request(self, *args: str, tty: bool = False, namespaces: Sequence[str] = (), **more: Any) -> dict[str, Any]:
        """A start request; `namespaces` restricts the private ones."""
        container = f"{os.getpid():08x}{next(_numbers):04x}{'0' * 52}"
        self.ids.append(container)
        (self.directory / container).mkdir(mode=0o700)
        kinds = [n for n in defaults.namespaces() if not namespaces or n["type"] in namespaces]
        config = {
            "process": {
                "args": list(args),
                "cwd": "/",
                "env": ["PATH=/bin"],
                "terminal": tty,
                "capabilities": defaults.capabilities(),
            },
            "mounts": defaults.mounts(),
            "annotations": {"proa.seccomp": "default"},
            "linux": {"namespaces": kinds, "resources": {"devices": defaults.device_rules()}},
        }
        return {
            "id": container,
            "dir": str(self.directory / container),
            "socket": str(self.directory / f"{container[:16]}.sock"),
            "config": config,
            "rootfs": [{"type": "bind", "source": str(self.root), "options": ["rbind", "ro"]}],
            "cgroup": {"name": f"proa/{container}"},
            "tty": tty,
            **more,
        }

    def start(self, *args: str, **more: Any) -> MonitorConnection:
        """Start a container that nobody is attached to."""
        return self.submit(self.request(*args, **more))

    def submit(self, request: dict[str, Any], fds: dict[str, Any] | None = None) -> MonitorConnection:
        connection = self.nursery.start_container(request, fds)
        self.connections.append(connection)
        return connection

    def start_attached(
        self, *args: str, how: Attach | None = None, **more: Any
    ) -> tuple[MonitorConnection, socket.socket]:
        """Start a container with one client attached from its first byte."""
        ours, theirs = self.pair()
        with theirs:
            attach = {"streams": ["stdout", "stderr"]} if how is None else how
            request = self.request(*args, attach=[attach], **more)
            return self.submit(request, {"attach": [theirs.fileno()]}), ours

    def attach(self, connection: MonitorConnection, how: Attach | None = None) -> socket.socket:
        ours, theirs = self.pair()
        with theirs:
            connection.attach(theirs.fileno(), how)
        return ours

    def exit_record(self, connection: MonitorConnection) -> dict[str, Any]:
        return dict(json.loads((self.container_directory(connection) / "exit.json").read_bytes()))

    @staticmethod
    def input_only() -> Attach:
        """How a client attaches that only types."""
        return Attach(streams=(), stdin=True)

    def container_directory(self, connection: MonitorConnection) -> Path:
        prefix = Path(connection.path).stem
        return next(self.directory / c for c in self.ids if c.startswith(prefix))

    def log(self, connection: MonitorConnection) -> list[tuple[str, str]]:
        directory = self.container_directory(connection)
        lines = (directory / f"{directory.name}-json.log").read_bytes().splitlines()
        return [(r["stream"], r["log"]) for r in map(json.loads, lines)]

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        for connection in self.connections:
            try:
                connection.kill(9)
            except Exception:
                pass
        for connection in self.connections:
            try:
                while connection.next_event(10) is not None:
                    pass
            except Exception:
                pass
            connection.close()
        self.nursery.close()


def wait_exit(connection: MonitorConnection, timeout_s: float = 15) -> dict[str, Any]:
    """The exit event; others before it are dropped."""
    while True:
        event = connection.next_event(timeout_s)
        assert event is not None, "the monitor is gone without an exit event"
        if event["event"] == "exit":
            return event


def unframe(data: bytes) -> dict[int, bytes]:
    """Docker's frames put back together, by stream number."""
    out: dict[int, list[bytes]] = {}
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "big")
        assert data[at + 1 : at + 4] == b"\0\0\0"
        assert len(data) >= at + 8 + size
        out.setdefault(data[at], []).append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return {stream: b"".join(parts) for stream, parts in out.items()}


def receive_all(client: socket.socket) -> bytes:
    data = bytearray()
    while chunk := client.recv(1 << 20):
        data += chunk
    return bytes(data)


def receive_until(client: socket.socket, text: bytes) -> bytes:
    data = b""
    while text not in data:
        chunk = client.recv(1 << 16)
        assert chunk, f"ended with {data!r}"
        data += chunk
    return data


def wait_until(condition: Callable[[], bool], timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
