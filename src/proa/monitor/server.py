"""The monitor's control socket: who may speak, requests in, answers and events out."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable
from typing import Any

from proa.errors import Conflict, Denied, Internal, Invalid, ProaError
from proa.linux.sockets import peer, receive_fds
from proa.monitor import title
from proa.monitor.loop import ERROR, HANGUP, READ, WRITE, Loop
from proa.monitor.protocol import MAX_MESSAGE_FDS, RECEIVE_BYTES, Inbox, Request, encode_line, parse_request

__all__ = ["Listener", "Peer", "Server"]

# Plain integers: the socket module's enumerations are slow to combine.
_NO_WAIT = int(socket.MSG_DONTWAIT)
_SEND_FLAGS = _NO_WAIT | int(socket.MSG_NOSIGNAL)

BACKLOG_LIMIT_BYTES = 256 << 10

Handler = Callable[["Peer", Request, list[int]], dict[str, Any] | None]


class Listener:
    """A listening socket and its directory, so that the end of the one can remove its name from the other."""

    def __init__(self, sock: socket.socket, directory_fd: int, name: str) -> None:
        self.socket = sock
        self.directory_fd = directory_fd
        self._name = name

    @classmethod
    def bind(cls, path: str) -> Listener:
        """Listen at `path`, longer than sun_path or not, with mode 0600; a stale socket there is replaced.

        Raises Denied when others can enter the directory (it must be of mode 0700), OSError.
        """
        directory, name = os.path.split(path)
        directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        listener = cls(sock, directory_fd, name)
        try:
            if stat.S_IMODE(os.fstat(directory_fd).st_mode) & 0o077:
                raise Denied(
                    f"directory {directory} of the monitor's socket is open to others",
                    code="socket-directory-open",
                    subject=directory,
                    hint="make it mode 0700",
                )
            listener._unlink()
            mask = os.umask(0o177)
            try:
                sock.bind(f"/proc/self/fd/{directory_fd}/{name}")
            finally:
                os.umask(mask)
            sock.listen(64)
        except BaseException:
            listener.close()
            raise
        return listener

    def close(self) -> None:
        """Remove the socket; connections go on."""
        if self.directory_fd >= 0:
            self._unlink()
            os.close(self.directory_fd)
            self.directory_fd = -1
            self.socket.close()

    def _unlink(self) -> None:
        try:
            os.unlink(self._name, dir_fd=self.directory_fd)
        except OSError:
            pass


class Peer:
    """One connection of the engine."""

    __slots__ = ("_inbox", "_outbox", "_server", "_socket", "on_close", "watching")

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self._server = server
        self._socket = sock
        self._inbox = Inbox()
        self._outbox = b""
        self.watching = False
        self.on_close: Callable[[], None] | None = None

    @property
    def flushed(self) -> bool:
        """True when everything said was taken."""
        return not self._outbox

    def listen(self) -> None:
        """Serve requests from the loop from now on."""
        self._update()

    def look(self) -> None:
        """Serve what has come already, now and not in the next round."""
        self._ready(READ)

    def say(self, message: dict[str, Any]) -> None:
        """Send an answer or event without waiting; a peer that never reads is dropped."""
        if self._socket.fileno() < 0:
            return
        self._outbox += encode_line(message)
        self._flush()
        if len(self._outbox) > BACKLOG_LIMIT_BYTES:
            self.close()

    def answer(self, request: Request, answer: dict[str, Any]) -> None:
        """Answer a request."""
        self.say({"seq": request.seq, "ok": answer})

    def refuse(self, request: Request, error: Exception) -> None:
        """Answer a request with the error it met."""
        if isinstance(error, ProcessLookupError):
            error = Conflict("the process has ended", code="process-ended")
        elif not isinstance(error, ProaError):
            title.report("monitor request", error)
            error = Internal(f"{type(error).__name__}: {error}", code="monitor-failed")
        self.say({"seq": request.seq, "error": error.to_record()})

    def close(self) -> None:
        """Close the connection and every descriptor that came without a request."""
        if self._socket.fileno() < 0:
            return
        for fd in self._inbox.fds:
            os.close(fd)
        self._inbox.fds.clear()
        self._outbox = b""
        self._server.loop.close(self._socket.detach())
        self._server.peers.discard(self)
        if self.on_close is not None:
            self.on_close()

    def _update(self) -> None:
        self._server.loop.watch(self._socket.fileno(), READ | (WRITE if self._outbox else 0), self._ready)

    def _flush(self) -> None:
        before = bool(self._outbox)
        try:
            sent = self._socket.send(self._outbox, _SEND_FLAGS)
            self._outbox = self._outbox[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if before or self._outbox:
            self._update()

    def _ready(self, events: int) -> None:
        if events & WRITE and self._outbox:
            self._flush()
        if events & (READ | HANGUP | ERROR) and self._socket.fileno() >= 0:
            try:
                chunk, fds = receive_fds(self._socket, RECEIVE_BYTES, MAX_MESSAGE_FDS, _NO_WAIT)
                self._inbox.fds += fds
                lines = self._inbox.feed(chunk)
            except BlockingIOError:
                return
            except (OSError, ValueError):
                self.close()
                return
            if not chunk:
                self.close()
                return
            for line in lines:
                self._serve(line)

    def _serve(self, line: bytes) -> None:
        try:
            request, fds = parse_request(line, self._inbox)
        except Invalid as error:
            # Without the request its descriptors cannot be told from the next one's.
            self.say({"seq": 0, "error": error.to_record()})
            self.close()
            return
        try:
            answer = self._server.handle(self, request, fds)
            if answer is not None:
                self.answer(request, answer)
        except Exception as error:  # noqa: BLE001 - one failed request must not end the monitor
            self.refuse(request, error)
        finally:
            for fd in fds:
                os.close(fd)


class Server:
    """All connections of one monitor.

    handle(peer, request, fds) answers one request, raises, or returns None and answers later (`Peer.answer`,
    `Peer.refuse`); it removes from `fds` the descriptors it keeps.
    """

    def __init__(self, loop: Loop, handle: Handler) -> None:
        self.loop = loop
        self.handle = handle
        self.peers: set[Peer] = set()
        self._listener: Listener | None = None

    def adopt(self, sock: socket.socket) -> Peer:
        """Take a connected socket as a peer."""
        entry = Peer(self, sock)
        self.peers.add(entry)
        return entry

    def listen(self, listener: Listener) -> None:
        """Accept connections from root and from our own user."""
        self._listener = listener
        self.loop.watch(listener.socket.fileno(), READ, self._accept)

    def broadcast(self, event: dict[str, Any]) -> None:
        """Send an event to every watching peer."""
        for entry in tuple(self.peers):
            if entry.watching:
                entry.say(event)

    @property
    def watched(self) -> bool:
        """Whether somebody hears of the container's end."""
        return any(entry.watching for entry in self.peers)

    def stop_listening(self) -> None:
        """Remove the socket; connections go on."""
        if self._listener is not None:
            self.loop.forget(self._listener.socket.fileno())
            self._listener.close()
            self._listener = None

    @property
    def flushed(self) -> bool:
        """True when every peer took everything."""
        return all(entry.flushed for entry in self.peers)

    def _accept(self, _events: int) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.socket.accept()
        except BlockingIOError:
            return
        except OSError:
            # Out of descriptors, most likely: the connection stays in the backlog, try again soon.
            self.loop.forget(self._listener.socket.fileno())
            self.loop.call_at(time.monotonic() + 0.1, self._accept_again)
            return
        if peer(sock).uid not in (0, os.geteuid()):
            sock.close()
            return
        joined = self.adopt(sock)
        joined.listen()
        joined.look()

    def _accept_again(self) -> None:
        if self._listener is not None:
            self.loop.watch(self._listener.socket.fileno(), READ, self._accept)
