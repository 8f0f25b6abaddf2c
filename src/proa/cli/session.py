"""A person's or a pipe's conversation with a container: bytes both ways until one side is done.

Where there is only output this is one blocking loop; else `proa.cli.pump` does it.
"""

from __future__ import annotations

from posix import write

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


__all__ = ["DetachKeys", "converse", "detach_keys", "put", "show"]


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
    demultiplexer: Demultiplexer | None,
    stdin: int | None = None,
    keys: DetachKeys | None = None,
    watched: Watched | None = None,
) -> bool:
    """Pass bytes until the container's side ends (True) or the detach keys are typed (False).

    demultiplexer: for the frames; None for a terminal
    stdin:   the descriptor to read input from, or None; its end half-closes the connection
    watched: something else to be told when its descriptor is ready
    Raises BrokenPipeError when our output has nobody to read it, Corrupt for a garbled stream.
    """
    if stdin is None and watched is None:
        while data := connection.raw_read():
            show(data, demultiplexer)
            if demultiplexer is not None and demultiplexer.exit_status is not None:
                break
        return True
    from proa.cli.pump import Pump

    return Pump(connection, demultiplexer, stdin, keys, watched).run()


def show(data: bytes, demultiplexer: Demultiplexer | None) -> None:
    """Write what a process wrote to our stdout and stderr."""
    if demultiplexer is None:
        put(1, data)
    else:
        for stream, piece in demultiplexer.feed(data):
            put(2 if stream >= STDERR else 1, piece)
