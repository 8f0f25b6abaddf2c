"""A person's or a pipe's conversation with a container: bytes both ways until one side is done.

Output is written as it comes; input is read only when the engine has taken what was read before, so that neither side
can block the other for good. Where there is no input this is one blocking loop without poll.
"""

from __future__ import annotations

from posix import read, write

from proa.client.frames import STDERR, Demultiplexer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.client.connection import Connection

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
) -> bool:
    """Pass bytes until the container's side ends (True) or the detach keys are typed (False).

    stdin: the descriptor to read input from, or None; its end half-closes the connection.
    Raises BrokenPipeError when our output has nobody to read it, Corrupt for a garbled stream.
    """
    demultiplexer = None if tty else Demultiplexer()
    if stdin is None:
        while data := connection.raw_read():
            _show(data, demultiplexer)
        return True
    return _both_ways(connection, demultiplexer, stdin, keys)


def _show(data: bytes, demultiplexer: Demultiplexer | None) -> None:
    if demultiplexer is None:
        put(1, data)
    else:
        for stream, piece in demultiplexer.feed(data):
            put(2 if stream >= STDERR else 1, piece)


def _both_ways(
    connection: Connection, demultiplexer: Demultiplexer | None, stdin: int, keys: DetachKeys | None
) -> bool:
    from select import POLLERR, POLLHUP, POLLIN, POLLOUT, poll

    engine = connection.fileno()
    poller = poll()
    poller.register(engine, POLLIN)
    poller.register(stdin, POLLIN)
    connection.set_blocking(False)
    pending = b""
    early = connection.early()
    if early:
        _show(early, demultiplexer)
    while True:
        for fd, event in poller.poll():
            if fd == engine:
                if event & POLLOUT and pending:
                    pending = pending[connection.send_some(pending) :]
                    if not pending:
                        poller.modify(engine, POLLIN)
                        poller.register(stdin, POLLIN)
                if event & (POLLIN | POLLHUP | POLLERR):
                    data = connection.receive_some()
                    if data == b"":
                        return True
                    if data:
                        _show(data, demultiplexer)
            else:
                try:
                    data = read(stdin, _INPUT_BYTES)
                except OSError:  # a terminal that hung up, a descriptor that was never open
                    data = b""
                leave = False
                if data and keys is not None:
                    data, leave = keys.feed(data)
                    if leave:
                        connection.send_some(data)
                        return False
                    if not data:
                        continue
                if not data:
                    poller.unregister(stdin)
                    connection.half_close()
                    continue
                pending = data[connection.send_some(data) :]
                if pending:
                    poller.unregister(stdin)
                    poller.modify(engine, POLLIN | POLLOUT)
