"""Docker's multiplexed stream, without IO: one connection carries a container's stdout and stderr.

    +--------+---+---+---+--------------------+-----------------+
    | stream | 0 | 0 | 0 | length, big-endian | payload         |
    +--------+---+---+---+--------------------+-----------------+

stream: 0 stdin, 1 stdout, 2 stderr, 3 an error of the engine; where the client asked for it (`/proa/v1/`), 4 is the
process's exit status in decimal digits, and last.
A container with a terminal has no frames: its bytes come as they are.
"""

from __future__ import annotations

from proa.errors import Corrupt

__all__ = ["STDERR", "STDOUT", "SYSTEM_ERROR", "Demultiplexer"]

STDOUT = 1
STDERR = 2
SYSTEM_ERROR = 3
EXIT = 4


class Demultiplexer:
    """Takes pieces of the stream as they come and gives out (stream, bytes), however the pieces were cut."""

    __slots__ = ("_exit", "_header", "_left", "_stream")

    def __init__(self) -> None:
        self._exit = b""
        self._header = b""
        self._left = 0
        self._stream = STDOUT

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Decode; a payload is given out as far as it has come.

        Raises Corrupt for bytes that are no frame header.
        """
        frames: list[tuple[int, bytes]] = []
        position, end = 0, len(data)
        while position < end:
            if self._left:
                piece = data[position : position + self._left]
                position += len(piece)
                self._left -= len(piece)
                if self._stream == EXIT:
                    self._exit += piece
                else:
                    frames.append((self._stream, piece))
                continue
            need = 8 - len(self._header)
            self._header += data[position : position + need]
            position += need
            if len(self._header) < 8:
                break
            header, self._header = self._header, b""
            if header[0] > EXIT or header[1:4] != b"\0\0\0":
                raise Corrupt(f"not a frame of a multiplexed stream: {header!r}", code="bad-stream-frame")
            self._stream = header[0] or STDOUT
            self._left = int.from_bytes(header[4:], "big")
        return frames

    @property
    def exit_status(self) -> int | None:
        """The exit status, once it has come whole."""
        return int(self._exit) if self._exit and self.between_frames else None

    @property
    def between_frames(self) -> bool:
        """Whether the stream may end here."""
        return not self._left and not self._header
