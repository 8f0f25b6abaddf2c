"""Doors: one listening socket each, with what is true of whoever comes in by it."""

from __future__ import annotations

import socket
import struct
from typing import Literal

import msgspec

from proa.api.sockets.scopes import Scope


class Door:
    """kind: "own" for the engine's own socket, "scoped", or "tcp"; limit: clients at once, 0 for the server's own."""

    def __init__(
        self, kind: Literal["own", "scoped", "tcp"] = "own", path: str = "", scope: Scope | None = None, limit: int = 0
    ) -> None:
        self.kind = kind
        self.path = path
        self.scope = scope
        self.limit = limit
        self.bare = False  # TCP without TLS: browsers of this machine reach it
        self.connected = 0

    @property
    def full(self) -> bool:
        """Whether no further client is let in by this door."""
        return 0 < self.limit <= self.connected

    def __str__(self) -> str:
        return f"{self.path} ({self.scope})" if self.scope else self.path or self.kind


class Peer(msgspec.Struct, frozen=True):
    """The process that connected, as the kernel saw it then."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """Who is on the other side of a unix socket: SO_PEERCRED, unix(7)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Peer(*struct.unpack("3i", raw))
