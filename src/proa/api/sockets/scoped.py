"""Scoped sockets: added, listed, removed, and there again with the next engine of the data root.

`sockets.json` of the data root has them. An engine that serves some does not end itself when it is idle.
"""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import pwd
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from proa.api.accept import Acceptor
from proa.api.activation import listen
from proa.api.sockets.doors import Door
from proa.api.sockets.scopes import Scope
from proa.errors import Conflict, Corrupt, Invalid, NotFound, ProaError
from proa.storage.records import read_record, write_record

if TYPE_CHECKING:
    from proa.api.server import HttpServer

log = logging.getLogger("proa.api")

MAX_SOCKETS = 64
#: Clients of one scoped socket at once, so that they leave room for the engine's own.
MAX_CLIENTS = 256


class ScopedSocket(msgspec.Struct, frozen=True, rename="pascal", kw_only=True):
    """One of them. owner: `user`, `user:group` or `:group`, by name or number; who may connect besides root."""

    path: str
    scope: Scope
    owner: str = ""


class _Kept(msgspec.Struct, kw_only=True):
    sockets: list[ScopedSocket] = []


class ScopedSockets:
    """Those of one engine; for the loop's thread."""

    def __init__(self, server: HttpServer, record: Path) -> None:
        self._server = server
        self._record = record
        self._open: dict[str, tuple[ScopedSocket, Door, Acceptor]] = {}
        self._broken: dict[str, ScopedSocket] = {}

    def resume(self) -> None:
        """Serve those that were added to earlier engines; one that cannot be served now is told in the log."""
        try:
            kept = read_record(self._record, _Kept).sockets
        except (FileNotFoundError, NotFound):
            return
        except Corrupt as error:
            log.error("scoped sockets are not served: %s", error.message)
            return
        for wanted in kept:
            try:
                self._serve(wanted)
            except (ProaError, OSError) as error:
                log.error("cannot serve the scoped socket %s: %s", wanted.path, error)
                self._broken[wanted.path] = wanted

    def list(self) -> list[tuple[ScopedSocket, int]]:
        """Each with how many clients it has, or -1 when it could not be opened."""
        served = [(wanted, door.connected) for wanted, door, _ in self._open.values()]
        return sorted([*served, *((wanted, -1) for wanted in self._broken.values())], key=lambda pair: pair[0].path)

    def __len__(self) -> int:
        return len(self._open)

    def add(self, wanted: ScopedSocket) -> None:
        """Serve one from now on. Raises Invalid, Conflict, Unavailable; nothing is left behind then."""
        wanted.scope.check()
        if wanted.path in self._open:
            raise Conflict(f"there is a scoped socket {wanted.path} already", code="socket-exists", subject=wanted.path)
        if len(self._open) >= MAX_SOCKETS:
            raise Conflict(f"there are {MAX_SOCKETS} scoped sockets already", code="sockets-many")
        self._broken.pop(wanted.path, None)
        self._serve(wanted)
        try:
            self._keep()
        except BaseException:
            self._withdraw(wanted.path)
            raise

    def remove(self, path: str) -> None:
        """Serve it no longer; its clients' connections end, but for streams that containers' monitors hold.

        Raises NotFound.
        """
        if path in self._open:
            self._withdraw(path)
        elif self._broken.pop(path, None) is None:
            raise NotFound(f"there is no scoped socket {path}", code="socket-not-found", subject=path)
        self._keep()

    async def close(self) -> None:
        """The engine stops: nobody listens at the paths any more, and the next engine listens there again."""
        for wanted, _, acceptor in self._open.values():
            Path(wanted.path).unlink(missing_ok=True)  # noqa: ASYNC240 one system call
            await acceptor.close()
        self._open.clear()

    def _keep(self) -> None:
        sockets = [*(wanted for wanted, _, _ in self._open.values()), *self._broken.values()]
        write_record(self._record, _Kept(sockets=sockets))

    def _serve(self, wanted: ScopedSocket) -> None:
        listener = open_socket(wanted)
        door = Door("scoped", wanted.path, wanted.scope, MAX_CLIENTS)
        acceptor = Acceptor(self._server, listener, door)
        acceptor.start()
        self._open[wanted.path] = (wanted, door, acceptor)

    def _withdraw(self, path: str) -> None:
        _, door, acceptor = self._open.pop(path)
        Path(path).unlink(missing_ok=True)
        closing = asyncio.get_running_loop().create_task(acceptor.close())
        closing.add_done_callback(lambda _: self._server.end_door(door))


def open_socket(wanted: ScopedSocket) -> socket.socket:
    """Listen at its path for its owner. Raises Invalid for a place where others could put something in its stead."""
    path = Path(wanted.path)
    if not path.is_absolute() or "\0" in wanted.path or ".." in path.parts or path.name in ("", "."):
        raise Invalid(f"a socket needs an absolute path, {wanted.path[:200]!r} is none", code="socket-path")
    _check_place(path)
    user, group = _owner(wanted.owner)

    def admit(path: Path) -> None:
        try:
            os.chown(path, user, group, follow_symlinks=False)
        except (OSError, OverflowError) as error:
            path.unlink(missing_ok=True)
            raise Invalid(
                f"cannot give {path} to {wanted.owner}: {error}", code="socket-owner", subject=wanted.owner
            ) from None
        path.chmod(0o660)

    return listen(path, admit)


def _check_place(path: Path) -> None:
    """Every directory on the way belongs to root or us, and only a sticky one may be written by others."""
    for directory in path.parents:
        try:
            found = directory.lstat()
        except OSError as error:
            raise Invalid(f"cannot listen at {path}: {directory}: {error.strerror}", code="socket-path") from None
        if stat.S_ISLNK(found.st_mode):
            raise Invalid(f"cannot listen at {path}: {directory} is a symbolic link", code="socket-path")
        shared = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.geteuid()) or shared:
            raise Invalid(
                f"cannot listen at {path}: others could replace what is in {directory}",
                code="socket-path",
                hint="use a directory that belongs to root and only root can write to",
            )


def _owner(text: str) -> tuple[int, int]:
    """User and group ids, -1 for what is not named. Raises Invalid."""
    user, _, group = text.partition(":")
    try:
        return (
            -1 if not user else int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid,
            -1 if not group else int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid,
        )
    except (KeyError, ValueError):
        raise Invalid(f"there is no user or group {text[:100]!r}", code="socket-owner", subject=text) from None
