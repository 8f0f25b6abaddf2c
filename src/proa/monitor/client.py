"""The engine's side of a monitor: requests with time-outs, and a connection whose descriptor tells of events."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import msgspec

from proa.errors import Corrupt, NotFound, ProaError, TimedOut, Unavailable, from_record
from proa.linux.sockets import send_fds
from proa.monitor import protocol
from proa.monitor.protocol import Inbox, Request, encode_line

__all__ = ["Channel", "MonitorConnection", "connect_path"]

REQUEST_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 2.0

_decoder = msgspec.json.Decoder(dict[str, Any])
_encoder = msgspec.json.Encoder()


def connect_path(path: str, timeout_s: float = REQUEST_TIMEOUT_S) -> socket.socket:
    """Connect to a unix stream socket whatever the length of its path. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout_s)
        if len(os.fsencode(path)) < 100:
            sock.connect(path)
        else:
            # sun_path holds 108 bytes: go through the directory's descriptor.
            directory, name = os.path.split(path)
            fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                sock.connect(f"/proc/self/fd/{fd}/{name}")
            finally:
                os.close(fd)
    except BaseException:
        sock.close()
        raise
    return sock


class Channel:
    """One connection to a monitor: requests and answers in turn, events in between. Not for two threads at once."""

    def __init__(self, sock: socket.socket, subject: str) -> None:
        self._socket = sock
        self._subject = subject
        self._inbox = Inbox()
        self._events: list[dict[str, Any]] = []
        self._seq = 0
        self._ended = False

    @classmethod
    def connect(cls, path: str, timeout_s: float = REQUEST_TIMEOUT_S) -> Channel:
        """Raises NotFound when no monitor listens there, Unavailable when it does not accept."""
        try:
            return cls(connect_path(path, timeout_s), path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NotFound(
                f"no monitor listens at {path}: {error.strerror}", code="monitor-gone", subject=path
            ) from error
        except OSError as error:
            raise Unavailable(
                f"cannot connect to the monitor at {path}: {error}", code="monitor-unreachable", subject=path
            ) from error

    def fileno(self) -> int:
        """Readable when an event (or the end) may have come."""
        return self._socket.fileno()

    @property
    def ended(self) -> bool:
        """True once the monitor closed the connection."""
        return self._ended

    def send(self, request: Request, fds: Sequence[int] = ()) -> int:
        """Send one request; returns its sequence number. The descriptors stay the caller's."""
        self._seq += 1
        request.seq = self._seq
        request.fds = len(fds)
        line = encode_line(request)
        self._socket.settimeout(REQUEST_TIMEOUT_S)
        try:
            sent = send_fds(self._socket, line[: 1 << 16], fds)
            if sent < len(line):
                self._socket.sendall(memoryview(line)[sent:])
        except TimeoutError as error:
            raise self._slow("take the request", REQUEST_TIMEOUT_S) from error
        except OSError as error:
            self._ended = True
            raise self._gone() from error
        return self._seq

    def request(
        self, request: Request, fds: Sequence[int] = (), timeout_s: float = REQUEST_TIMEOUT_S
    ) -> dict[str, Any]:
        """Send a request and wait for its answer; events that come first are kept for `next_event`.

        Raises the monitor's error as its kind, TimedOut, or Unavailable when the monitor is gone.
        """
        seq = self.send(request, fds)
        deadline = time.monotonic() + timeout_s
        while True:
            for message in self._receive(deadline, timeout_s):
                if message.get("seq") != seq:
                    self._events.append(message)
                elif "error" in message:
                    raise from_record(message["error"])
                else:
                    answer: dict[str, Any] = message["ok"]
                    return answer

    def next_event(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """The next event; None when the monitor closed the connection. `timeout_s` None waits for ever."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._events:
            if self._ended:
                return None
            try:
                self._events += self._receive(deadline, timeout_s)
            except Unavailable:
                return None
        return self._events.pop(0)

    def pending_events(self) -> list[dict[str, Any]]:
        """What has come already, without waiting; `ended` tells whether more can come."""
        poller = select.poll()  # descriptors of a busy engine are too high for select(2)
        poller.register(self._socket, select.POLLIN)
        while not self._ended and poller.poll(0):
            try:
                self._events += self._receive(None, None)
            except Unavailable:
                break
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Close the connection; the monitor goes on."""
        self._socket.close()

    def _receive(self, deadline: float | None, timeout_s: float | None) -> list[dict[str, Any]]:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._slow("answer", timeout_s)
            self._socket.settimeout(left)
        else:
            self._socket.settimeout(None)
        try:
            chunk = self._socket.recv(1 << 16)
        except TimeoutError as error:
            raise self._slow("answer", timeout_s) from error
        except OSError as error:
            self._ended = True
            raise self._gone() from error
        if not chunk:
            self._ended = True
            raise self._gone()
        try:
            return [_decoder.decode(line) for line in self._inbox.feed(chunk)]
        except (msgspec.DecodeError, ValueError) as error:
            raise Corrupt(f"the monitor at {self._subject} sent no JSON: {error}", subject=self._subject) from error

    def _gone(self) -> ProaError:
        return Unavailable(
            f"the monitor at {self._subject} closed the connection", code="monitor-gone", subject=self._subject
        )

    def _slow(self, what: str, timeout_s: float | None) -> ProaError:
        return TimedOut(
            f"the monitor at {self._subject} did not {what} within {timeout_s} s",
            code="monitor-slow",
            subject=self._subject,
        )


class MonitorConnection:
    """One container's monitor, as the engine holds it.

    The connection itself carries events only (`fileno`, `next_event`, `pending_events`: one thread). Every request
    opens a connection of its own, so requests may come from any thread at any time. `started` is the `started` event
    of the connection that started the container, else empty.
    """

    def __init__(self, path: str, events: Channel, started: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.started = started or {}
        self._events = events

    @classmethod
    def connect(cls, path: str, timeout_s: float = REQUEST_TIMEOUT_S) -> MonitorConnection:
        """Find a running monitor again and watch it. Raises NotFound, Unavailable, TimedOut."""
        channel = Channel.connect(path, timeout_s)
        try:
            channel.request(protocol.WatchRequest(), timeout_s=timeout_s)
        except BaseException:
            channel.close()
            raise
        return cls(path, channel)

    @classmethod
    def join(cls, path: str, timeout_s: float = CONNECT_TIMEOUT_S) -> MonitorConnection:
        """As `connect`, but without waiting for the monitor to answer: its state comes as the event `state`.

        A monitor that somebody stopped (SIGSTOP) can be joined, too. Raises NotFound when there is none.
        """
        channel = Channel.connect(path, timeout_s)
        try:
            channel.send(protocol.WatchRequest())
        except BaseException:
            channel.close()
            raise
        return cls(path, channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Readable when an event came or the monitor ended."""
        return self._events.fileno()

    @property
    def ended(self) -> bool:
        """True once the monitor closed the event connection."""
        return self._events.ended

    def next_event(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """The next event, or None when the monitor is gone; raises TimedOut."""
        return self._events.next_event(timeout_s)

    def pending_events(self) -> list[dict[str, Any]]:
        """Events that are already here; the answer to `join` is one, too."""
        return [
            {"event": "state", **event["ok"]} if "ok" in event else event for event in self._events.pending_events()
        ]

    def state(self) -> dict[str, Any]:
        """{"status": running|paused|exited, "pid", "start_time", "started_at", "execs": {id: ExecState}}."""
        return self._request(protocol.StateRequest())

    def attach(self, client_fd: int, how: protocol.Attach | None = None) -> None:
        """Join a client's connected socket; the caller closes its own copy. Raises Conflict when it has exited."""
        self._request(protocol.AttachRequest(attach=how or protocol.Attach()), [client_fd])

    @contextmanager
    def attach_after(self, client_fd: int, how: protocol.Attach) -> Iterator[None]:
        """As `attach`, but the client hears nothing before the context ends: time to write what the log has.

        Nothing is lost and nothing comes twice: meanwhile no output is read. Raises Conflict when it has exited.
        """
        channel = Channel.connect(self.path)
        try:
            held = msgspec.structs.replace(how, held=True)
            channel.request(protocol.AttachRequest(attach=held), [client_fd])
            yield
        finally:
            channel.close()

    def exec(self, request: protocol.ExecRequest, client_fd: int | None = None) -> dict[str, Any]:
        """Run another process: {"pid", "start_time"}. Its end comes as an `exec-exit` event.

        A launcher that the nursery lends does it sooner (`borrowed`). With `client_fd` the client is attached before
        the process runs, without it the output is dropped. Raises NotFound (command-not-found), Denied, Conflict …
        """
        return self._request(request, [] if client_fd is None else [client_fd])

    def exec_target(self) -> protocol.ExecTarget:
        """What a launcher has to know for an exec. Raises Unsupported when another runtime has it, Conflict."""
        answer = self._request(protocol.TargetRequest())
        answer["config"] = msgspec.Raw(_encoder.encode(answer["config"]))
        return protocol.ExecTarget(**answer)

    def exec_state(self, exec_id: str) -> dict[str, Any]:
        """One exec's ExecState as a dict; `status` is None while it runs. Raises NotFound."""
        return self._request(protocol.ExecStateRequest(id=exec_id))

    def resize(self, rows: int, columns: int, exec_id: str | None = None) -> None:
        """Set the terminal's size. Raises Conflict when there is no terminal, NotFound for an unknown exec."""
        self._request(protocol.ResizeRequest(h=rows, w=columns, exec=exec_id))

    def kill(
        self,
        signal: int,
        *,
        all_processes: bool = False,
        exec_id: str | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        """Signal the init, one exec, or every process. Raises Conflict when it has ended, TimedOut."""
        self._request(protocol.KillRequest(signal=signal, all=all_processes, exec=exec_id), timeout_s=timeout_s)

    def pause(self) -> None:
        """Freeze every process. Raises Conflict when it is paused already."""
        self._request(protocol.PauseRequest())

    def resume(self) -> None:
        """Thaw. Raises Conflict when it is not paused."""
        self._request(protocol.ResumeRequest())

    def close(self) -> None:
        """Stop watching; the monitor and its container go on."""
        self._events.close()

    def _request(
        self, request: Request, fds: Sequence[int] = (), timeout_s: float = REQUEST_TIMEOUT_S
    ) -> dict[str, Any]:
        channel = Channel.connect(self.path, timeout_s)
        try:
            return channel.request(request, fds, timeout_s)
        finally:
            channel.close()
