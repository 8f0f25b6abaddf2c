"""The messages between engine and monitor: JSON lines on a stream socket, descriptors beside them.

A request is one line `{"op": …, "seq": n, "fds": k, …}`; its k descriptors ride on the line's first byte
(SCM_RIGHTS). The answer is `{"seq": n, "ok": {…}}` or `{"seq": n, "error": record}`. Everything else a monitor
says by itself is an event, `{"event": …, …}`:

    started    {"pid", "start_time"}                        the container runs (first connection only)
    failed     {"error": record}                            it could not be started; the monitor is gone
    paused, resumed, detached {"exec"?}
    exec-exit  {"exec", "status", "signal", "time"}
    handed-over {}                                          the monitor has the exec now (only a lent launcher's)
    exit       {"status", "signal", "oom", "time", …}       last event; the exit record is already in place

`op` and the fields of each request are the structs below.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Self

import msgspec

from proa.errors import Invalid
from proa.linux.sockets import receive_fds
from proa.monitor.records import ExecState
from proa.runtime.userns import Mappings

__all__ = [
    "AdoptRequest",
    "Attach",
    "AttachRequest",
    "DEFAULT_DETACH_KEYS",
    "ExecRequest",
    "ExecStateRequest",
    "ExecTarget",
    "Inbox",
    "KillRequest",
    "LentExec",
    "LogOptions",
    "NetnsRequest",
    "MAX_MESSAGE_BYTES",
    "PauseRequest",
    "Request",
    "ResizeRequest",
    "ResumeRequest",
    "StartRequest",
    "StateRequest",
    "TargetRequest",
    "Wake",
    "WatchRequest",
    "encode_line",
    "parse_request",
    "parse_order",
    "parse_start",
    "read_line",
]

MAX_MESSAGE_BYTES = 32 << 20
MAX_MESSAGE_FDS = 64
RECEIVE_BYTES = 64 << 10
DEFAULT_DETACH_KEYS = bytes((16, 17))  # ctrl-p, ctrl-q


class LogOptions(msgspec.Struct, frozen=True):
    """Where output goes besides attached clients (`log_drivers`).

    max_size:   bytes at which the file is rotated, 0 for never; max_file: files to keep, 0 for no file at all.
    compress:   the files that were rotated.
    attributes: what each record carries (json-file), or fields of each message (journald).
    address, format, facility, tag: the receiver's, for journald and syslog.
    """

    driver: str = "json-file"
    max_size: int = 10_000_000
    max_file: int = 3
    compress: bool = True
    attributes: dict[str, str] = {}
    address: str = ""
    format: str = "unix"
    facility: int = 3
    tag: str = ""


class Attach(msgspec.Struct, frozen=True):
    """How one client joins the streams; its connected socket is the descriptor that came along.

    streams:     subset of ("stdout", "stderr") to write to the client; a terminal has stdout only.
    stdin:       read the container's stdin from the client.
    detach_keys: bytes that end this attach when typed on a terminal; None is ctrl-p ctrl-q, empty is none.
    early:       input that was read from the socket already, before it was handed over.
    tells_end:   the last frame it gets is number 4 with the exit status in decimal digits; only without a terminal.
    followed:    somebody else writes to it when the output has ended, so it is closed and not shut down.
    ends_exec:   when the client leaves otherwise than by the keys, its exec is ended.
    held:        nothing is written to it, and no output is read, until the connection of the request is closed: time to
                 write what the log has.
    """

    streams: tuple[str, ...] = ("stdout", "stderr")
    stdin: bool = False
    detach_keys: list[int] | None = None
    early: bytes = b""
    tells_end: bool = False
    followed: bool = False
    ends_exec: bool = False
    held: bool = False


class Wake(msgspec.Struct, frozen=True):
    """How to start an engine: its log, command line and environment."""

    log: str
    command: list[str]
    environment: dict[str, str]


class Request(msgspec.Struct, tag_field="op", kw_only=True):
    """What every request has: `seq` is repeated in the answer, `fds` counts the descriptors sent with it."""

    seq: int = 0
    fds: int = 0


class StartRequest(Request, tag="start"):
    """Start the container; descriptors: network namespace if `netns`, user namespace if `userns`, one per `attach`.

    dir:    the container's persistent directory: monitor.json, exit.json, the log.
    socket: path the monitor listens on, in a directory of mode 0700.
    config: OCI runtime config.json; rootfs: its mounts (type, source, options).
    cgroup: {"name": path below every hierarchy's root}.
    durable: fsync the exit record.
    wake: how to start an engine when the container has ended and none watches it.
    runtime: the program of another OCI runtime (`foreign`); empty for our own.
    """

    id: str
    dir: str
    socket: str
    config: dict[str, Any]
    rootfs: list[dict[str, Any]] = []
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    log: LogOptions = LogOptions()
    cgroup: dict[str, Any] = {}
    netns: bool = False
    userns: bool = False
    attach: list[Attach] = []
    durable: bool = True
    wake: Wake | None = None
    runtime: str = ""


class NetnsRequest(msgspec.Struct, frozen=True):
    """To the nursery: a network namespace, in a new user namespace with these maps; or, when a descriptor comes along,
    sockets in that one. names: with sockets for name queries.
    """

    maps: Mappings | None = None
    names: bool = False


class WatchRequest(Request, tag="watch"):
    """Send events on this connection from now on; the answer is the state."""


class StateRequest(Request, tag="state"):
    """The container's state."""


class AttachRequest(Request, tag="attach"):
    """Join a client socket (the one descriptor) to the container's streams."""

    attach: Attach = Attach()


class ExecRequest(Request, tag="exec"):
    """Run an additional process; `process` is config.json's process object. Descriptor: an attached client, if any."""

    id: str
    process: msgspec.Raw
    tty: bool = False
    stdin: bool = False
    attach: Attach | None = None

    @classmethod
    def of(
        cls,
        id: str,  # noqa: A002
        process: Mapping[str, Any],
        *,
        tty: bool = False,
        stdin: bool = False,
        attach: Attach | None = None,
    ) -> Self:
        """For a process that is not encoded yet."""
        return cls(id=id, process=msgspec.Raw(_encoder.encode(process)), tty=tty, stdin=stdin, attach=attach)


class TargetRequest(Request, tag="target"):
    """What is to be known of the container for an exec; the answer is an `ExecTarget`."""


class ExecTarget(msgspec.Struct, frozen=True):
    """A container that execs can be started in: its first process, its cgroup's directories (`Cgroup.directories`, none
    without a cgroup), what of its config.json an exec needs, and its monitor's socket.
    """

    pid: int
    start_time: int
    cgroup: dict[str, str]
    config: msgspec.Raw
    socket: str


class LentExec(Request, tag="lent-exec"):
    """From the engine to a launcher lent by the nursery; descriptor: an attached client, if any."""

    exec: ExecRequest
    target: ExecTarget


class AdoptRequest(Request, tag="adopt"):
    """Watch an exec that a lent launcher has started.

    Descriptors: where its exit status will be told, then `ExecProcess.fds`, then an attached client, if any.
    """

    state: ExecState
    stdin: bool = False
    attach: Attach | None = None


class ExecStateRequest(Request, tag="exec-state"):
    """One exec's state."""

    id: str


class ResizeRequest(Request, tag="resize"):
    """Set the terminal's size in characters, of the container or of one exec."""

    h: int
    w: int
    exec: str | None = None


class KillRequest(Request, tag="kill"):
    """Signal the init (or one exec), or every process of the container."""

    signal: int
    all: bool = False
    exec: str | None = None


class PauseRequest(Request, tag="pause"):
    """Freeze every process."""


class ResumeRequest(Request, tag="resume"):
    """Thaw."""


_decoder = msgspec.json.Decoder(
    StartRequest
    | WatchRequest
    | StateRequest
    | AttachRequest
    | ExecRequest
    | ExecStateRequest
    | TargetRequest
    | AdoptRequest
    | ResizeRequest
    | KillRequest
    | PauseRequest
    | ResumeRequest
)
_start_decoder = msgspec.json.Decoder(StartRequest)
_order_decoder = msgspec.json.Decoder(StartRequest | LentExec)
_encoder = msgspec.json.Encoder()


def encode_line(message: object) -> bytes:
    """The message as one line of JSON."""
    return _encoder.encode(message) + b"\n"


class Inbox:
    """Cuts a byte stream into lines and keeps the descriptors in the order they came.

    Descriptors travel on the first byte of their message and never overtake bytes, so taking as many as each
    message announces, in order, gives every message its own.
    """

    __slots__ = ("_parts", "_size", "fds")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self.fds: list[int] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Add received bytes; returns the lines now complete. Raises ValueError when one exceeds the budget."""
        if b"\n" not in chunk:
            self._size += len(chunk)
            if self._size > MAX_MESSAGE_BYTES:
                raise ValueError(f"message exceeds {MAX_MESSAGE_BYTES} bytes")
            if chunk:
                self._parts.append(chunk)
            return []
        lines = b"".join((*self._parts, chunk)).split(b"\n")
        rest = lines.pop()
        self._parts = [rest] if rest else []
        self._size = len(rest)
        return lines

    def take(self, count: int) -> list[int]:
        """The next `count` descriptors; raises ValueError when fewer arrived."""
        if count > len(self.fds) or count < 0:
            raise ValueError(f"message announces {count} descriptors, {len(self.fds)} came")
        taken, self.fds = self.fds[:count], self.fds[count:]
        return taken


def read_line(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Block for the first line of a connection, with every descriptor that came. Raises ConnectionError, ValueError."""
    inbox = Inbox()
    while True:
        chunk, fds = receive_fds(connection, RECEIVE_BYTES, MAX_MESSAGE_FDS)
        if not chunk:
            raise ConnectionResetError("the engine closed the connection before its request")
        inbox.fds += fds
        for line in inbox.feed(chunk):
            return line, inbox.fds


def parse_start(line: bytes) -> StartRequest:
    """A start request. Raises Invalid."""
    try:
        return _start_decoder.decode(line)
    except msgspec.DecodeError as error:
        raise Invalid(f"invalid start request: {error}", code="invalid-monitor-request") from error


def parse_order(line: bytes) -> StartRequest | LentExec:
    """What a launcher of the nursery is to do: the first request of its connection. Raises Invalid."""
    try:
        order: StartRequest | LentExec = _order_decoder.decode(line)
        return order
    except msgspec.DecodeError as error:
        raise Invalid(f"invalid order: {error}", code="invalid-monitor-request") from error


def parse_request(line: bytes, inbox: Inbox) -> tuple[Request, list[int]]:
    """A line of `inbox` as a request with its descriptors. Raises Invalid."""
    try:
        request = _decoder.decode(line)
        return request, inbox.take(request.fds)
    except (msgspec.DecodeError, ValueError) as error:
        raise Invalid(f"invalid request to the monitor: {error}", code="invalid-monitor-request") from error
