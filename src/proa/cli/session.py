"""A person's or a pipe's conversation with a container: bytes both ways until one side is done.

Output is written as it comes; input is read only when the engine has taken what was read before, so that neither side
can block the other for good.
"""

from __future__ import annotations

from posix import read, write
from select import POLLIN, POLLOUT, poll

from proa.client.frames import STDERR, Demultiplexer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from proa.client.connection import Connection

    class Watched(Protocol):
        """Something besides the conversation that is waited for."""

        def fileno(self) -> int:
            """The descriptor to watch now."""

        def ready(self) -> bool:
            """It is readable; whether to go on watching."""


__all__ = ["DetachKeys", "converse", "detach_keys", "put"]

_INPUT_BYTES = 64 << 10


def put(fd: int, data: bytes) -> None:
    """Write everything. Raises BrokenPipeError when nobody reads."""
    while data:
        data = data[write(fd, data) :]


class DetachKeys:
    """Finds the keys that leave a container running, in what was typed."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._seen = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What goes on to the container, and whether the whole sequence was typed."""
        out = bytearray()
        keys = self._keys
        for byte in data:
            if self._seen and byte != keys[self._seen]:
                out += keys[: self._seen]
                self._seen = 0
            if byte == keys[self._seen]:
                self._seen += 1
                if self._seen == len(keys):
                    return bytes(out), True
            else:
                out.append(byte)
        return bytes(out), False


def detach_keys(text: str) -> DetachKeys | None:
    """Read `ctrl-p,ctrl-q`: single characters or ctrl- with a letter or one of @[\\]^_; empty means the default.

    Raises Invalid for anything else.
    """
    keys = bytearray()
    for key in (text or "ctrl-p,ctrl-q").split(","):
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif len(key) == 6 and key.startswith("ctrl-") and (key[5].lower() in "abcdefghijklmnopqrstuvwxyz@[\\]^_"):
            keys.append(ord(key[5].upper()) & 0x1F)
        else:
            from proa.errors import Invalid

            raise Invalid(f"invalid detach keys `{text}`: unknown key `{key}`", code="bad-detach-keys", subject=text)
    return DetachKeys(bytes(keys))


def converse(
    connection: Connection,
    *,
    tty: bool,
    stdin: int | None = None,
    keys: DetachKeys | None = None,
    watched: Watched | None = None,
) -> bool:
    """Pass bytes until the container's side ends (True) or the detach keys are typed (False).

    stdin:   the descriptor to read input from, or None; its end half-closes the connection
    watched: something else to be told when its descriptor is ready
    Raises BrokenPipeError when our output has nobody to read it, Corrupt for a garbled stream.
    """
    demultiplexer = None if tty else Demultiplexer()
    if stdin is None and watched is None:
        while data := connection.raw_read():
            _show(data, demultiplexer)
        return True
    return _Pump(connection, demultiplexer, stdin, keys, watched).run()


def _show(data: bytes, demultiplexer: Demultiplexer | None) -> None:
    if demultiplexer is None:
        put(1, data)
    else:
        for stream, piece in demultiplexer.feed(data):
            put(2 if stream >= STDERR else 1, piece)


class _Pump:
    """Both directions at once, by poll."""

    def __init__(
        self,
        connection: Connection,
        demultiplexer: Demultiplexer | None,
        stdin: int | None,
        keys: DetachKeys | None,
        watched: Watched | None,
    ) -> None:
        self._connection = connection
        self._demultiplexer = demultiplexer
        self._stdin = stdin
        self._keys = keys
        self._watched = watched
        self._pending = b""  # input that the engine has not taken yet
        self._poller = poll()
        self._engine = connection.fileno()

    def run(self) -> bool:
        connection, engine = self._connection, self._engine
        self._poller.register(engine, POLLIN)
        if self._stdin is not None:
            self._poller.register(self._stdin, POLLIN)
        if self._watched is not None:
            self._poller.register(self._watched.fileno(), POLLIN)
        connection.set_blocking(False)
        early = connection.early()
        if early:
            _show(early, self._demultiplexer)
        while True:
            for fd, event in self._poller.poll():
                if fd == engine:
                    if event & POLLOUT and self._pending:
                        self._send(self._pending)
                    if event & ~POLLOUT:
                        data = connection.receive_some()
                        if data == b"":
                            return True
                        if data:
                            _show(data, self._demultiplexer)
                elif fd == self._stdin:
                    if not self._take_input(fd):
                        return False
                elif self._watched is not None:
                    self._poller.unregister(fd)
                    if self._watched.ready():
                        self._poller.register(self._watched.fileno(), POLLIN)

    def _take_input(self, fd: int) -> bool:
        """Read once and send on; False when the detach keys were typed."""
        try:
            data = read(fd, _INPUT_BYTES)
        except OSError:  # a terminal that hung up, a descriptor that was never open
            data = b""
        if not data:
            self._poller.unregister(fd)
            self._connection.half_close()
            return True
        if self._keys is not None:
            data, leave = self._keys.feed(data)
            if leave:
                self._connection.send_some(data)
                return False
        if data:
            self._send(data)
        return True

    def _send(self, data: bytes) -> None:
        """Send what the engine takes; while it does not take all, read no more input."""
        assert self._stdin is not None
        waited = bool(self._pending)
        self._pending = data[self._connection.send_some(data) :]
        if bool(self._pending) == waited:
            return
        if waited:
            self._poller.modify(self._engine, POLLIN)
            self._poller.register(self._stdin, POLLIN)
        else:
            self._poller.unregister(self._stdin)
            self._poller.modify(self._engine, POLLIN | POLLOUT)
