"""start: let a created container run its program."""

from __future__ import annotations

import _socket
import posix

from proa.errors import Conflict, Internal, Unavailable
from proa.runtime.verbs import documents, log, records
from proa.runtime.verbs.options import Options, Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.runtime.verbs.records import Record

__all__ = ["OPTIONS", "run", "start"]

OPTIONS: dict[str, str] = {}
_LINE_BYTES = 16 << 10


def run(settings: Settings, _options: Options, words: list[str]) -> int:
    """The verb."""
    if len(words) != 1:
        raise Conflict("one container id is needed", code="usage")
    start(settings, words[0])
    return 0


def start(settings: Settings, container_id: str) -> Record:
    """Start a created container; returns once its program runs. Raises Conflict, and why the program could not run."""
    directory, record = records.load(settings.root, container_id)
    status = records.status_of(directory, record)
    if status != "created":
        text = f"cannot start container {container_id}: it is {status}"
        raise Conflict(text, code="container-not-created", subject=container_id)
    connection = _connect(directory, container_id)
    connection.send(documents.encode(records.state_of(record, "created")).encode())
    # From now on it is not to be started again.
    posix.unlink(f"{directory}/{records.START}")
    _hear(settings, connection, record)
    if record.hooks["poststart"]:
        from proa.runtime.verbs.hooks import run_all

        run_all(settings, "poststart", record, "running")
    return record


def _connect(directory: str, container_id: str) -> _socket.socket:
    fd = posix.open(directory, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{fd}/{records.START}")
    except (ConnectionRefusedError, FileNotFoundError):
        text = f"cannot start container {container_id}: it has been started or has ended"
        raise Conflict(text, code="container-not-created", subject=container_id) from None
    finally:
        posix.close(fd)
    return connection


def _hear(settings: Settings, connection: _socket.socket, record: Record) -> None:
    """Follow the container's first process to its program (`channel`)."""
    ready = False
    while True:
        try:
            line = connection.recv(_LINE_BYTES + 1)
        except ConnectionResetError:
            raise Unavailable("the container was started by another process", code="container-not-created") from None
        if not line:
            break
        kind = line[:1]
        if kind == b"R":
            ready = True
        elif kind == b"W":
            log.warn(settings, line[1:].decode("utf-8", "surrogateescape"))
        elif kind == b"E":
            from proa.runtime.channel import decode_failure

            raise decode_failure(line[1:])
        elif kind == b"S":
            from proa.runtime.verbs.notify import pass_listener

            connection.send(b"G" + pass_listener(line, record.pid, record))
    if not ready:
        raise Internal("the container's first process ended before it ran the command", code="init-died")
