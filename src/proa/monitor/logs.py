"""What becomes of a container's output besides attached clients: cut into lines, for a file or for another program.

`LineLog` cuts; `file_log` and `remote_log` say where lines go. A line longer than 16 KiB comes in pieces, the last of
which ends it. Lines are passed on in bulk: everything one read returned gets one time stamp.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["LINE_LIMIT_BYTES", "LineLog", "LineSink", "log_path", "rfc3339"]

LINE_LIMIT_BYTES = 16 << 10

_second = -1
_second_text = ""


def rfc3339(time_ns: int) -> str:
    """Wall-clock nanoseconds as RFC 3339 in UTC with nine decimals."""
    global _second, _second_text
    second, fraction = divmod(time_ns, 1_000_000_000)
    if second != _second:
        t = time.gmtime(second)
        _second_text = f"{t[0]:04d}-{t[1]:02d}-{t[2]:02d}T{t[3]:02d}:{t[4]:02d}:{t[5]:02d}"
        _second = second
    return f"{_second_text}.{fraction:09d}Z"


def log_path(directory: str, container_id: str, layout: str = "json") -> str:
    """Path of a container's current log file; older ones append `.1`, `.2`, …, the newest of them with the highest
    number, and `.gz` when they are compressed."""
    return f"{directory}/{container_id}-{layout}.log"


def _character_boundary(text: bytes, end: int) -> int:
    """Largest cut <= end that does not split a UTF-8 sequence."""
    cut = end
    while cut > end - 4 and cut > 0 and text[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut if text[cut] & 0xC0 != 0x80 and cut > 0 else end


class LineSink(Protocol):
    """Where lines go. Nothing here may raise or wait long: the container's output would stop."""

    def lines(self, stream: str, text: bytes) -> None:
        """Whole lines: `text` ends with a newline."""

    def piece(self, stream: str, text: bytes) -> None:
        """A part of a line, without a newline."""

    def settle(self) -> None:
        """Do now what was put off: nothing else is to do."""

    def close(self) -> None:
        """The log has ended."""


class LineLog:
    """Cuts what was read from each stream into lines and gives them to sinks.

    `unfinished` has the beginning of a line by stream ("stdout", "stderr").
    """

    __slots__ = ("_sinks", "unfinished")

    def __init__(self, *sinks: LineSink) -> None:
        self._sinks = sinks
        self.unfinished: dict[str, bytes] = {}

    def write(self, stream: str, chunk: bytes) -> None:
        """Log what was just read from `stream`."""
        carry = self.unfinished
        if carry:
            held = carry.pop(stream, None)
            if held is not None:
                chunk = held + chunk
        size = len(chunk)
        if size <= LINE_LIMIT_BYTES:
            cut = chunk.rfind(b"\n") + 1
            if cut:
                self._lines(stream, chunk if cut == size else chunk[:cut])
            if cut < size:
                carry[stream] = chunk[cut:]
            if size - cut < LINE_LIMIT_BYTES:
                return
            chunk = carry.pop(stream)
            size = len(chunk)
        first = start = 0  # of the whole lines not passed on yet; of what was not looked at yet
        while size - start >= LINE_LIMIT_BYTES:
            limit = start + LINE_LIMIT_BYTES
            cut = chunk.rfind(b"\n", start, limit + 1) + 1
            if cut:
                start = cut
                continue
            if start > first:
                self._lines(stream, chunk[first:start])
            cut = _character_boundary(chunk, limit) if limit < size else limit
            for sink in self._sinks:
                sink.piece(stream, chunk[start:cut])
            first = start = cut
        start = max(start, chunk.rfind(b"\n", start) + 1)
        if start > first:
            self._lines(stream, chunk[first:start])
        if start < size:
            carry[stream] = chunk[start:]

    def _lines(self, stream: str, text: bytes) -> None:
        for sink in self._sinks:
            sink.lines(stream, text)

    def finish(self, stream: str) -> None:
        """The stream ended: log its last, unterminated line."""
        held = self.unfinished.pop(stream, None)
        if held:
            for sink in self._sinks:
                sink.piece(stream, held)

    def settle(self) -> None:
        """Do now what was put off while there was output."""
        for sink in self._sinks:
            sink.settle()

    def close(self) -> None:
        """Log what is still held and end."""
        for stream in tuple(self.unfinished):
            self.finish(stream)
        for sink in self._sinks:
            sink.close()
