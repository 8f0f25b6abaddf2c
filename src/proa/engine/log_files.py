"""The files of one log, as `proa.monitor.rotation` leaves them, and their two layouts.

NAME         written now
NAME.8       rotated, not compressed yet; the newest of the rotated has the highest number
NAME.7.gz    compressed
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from proa.engine.types import LogEntry

__all__ = ["SHAPES", "LogFile", "Parse", "open_all", "parse_of"]

BLOCK = 64 << 10
STREAMS = {"stdout": 1, "stderr": 2}
_GZIP = 31
_ATTEMPTS = 100

# A line without its newline -> an entry, None for a line that is damaged.
Parse = Callable[[bytes], LogEntry | None]


class _Line(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] = {}


_decode = msgspec.json.Decoder(_Line).decode


def _parse_json(raw: bytes) -> LogEntry | None:
    try:
        line = _decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None  # cut by power loss or a full disk
    # Bytes that were no UTF-8 were replaced by U+FFFD when they were written, as in Docker.
    data = line.log.encode("utf-8", "replace")
    return LogEntry(stream=STREAMS.get(line.stream, 1), time=line.time, data=data, attributes=line.attrs)


def _parse_cri(raw: bytes) -> LogEntry | None:
    parts = raw.split(b" ", 3)
    if len(parts) < 4 or parts[2] not in (b"F", b"P"):
        return None
    number = STREAMS.get(parts[1].decode("ascii", "replace"))
    if number is None:
        return None
    data = parts[3] + b"\n" if parts[2] == b"F" else parts[3]
    return LogEntry(stream=number, time=parts[0].decode("ascii", "replace"), data=data)


def parse_of(layout: str) -> Parse:
    """How the lines of a layout are read."""
    return _parse_json if layout == "json" else _parse_cri


class Shape(NamedTuple):
    """What decides, without reading a line whole, which stream it is of."""

    stderr: re.Pattern[bytes]


SHAPES = {
    "json": Shape(re.compile(rb'"stream":"stderr",(?:"attrs":\{.*\},)?"time":"[^"]*"\}$', re.DOTALL)),
    "cri": Shape(re.compile(rb"[^ ]* stderr ")),
}


class LogFile:
    """One open file, read from its beginning or from where `seek_tail` put it."""

    def __init__(self, fd: int, number: int, *, compressed: bool) -> None:
        self.fd = fd
        self.number = number
        self._decoder = zlib.decompressobj(_GZIP) if compressed else None

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        found = os.fstat(self.fd)
        return found.st_dev, found.st_ino

    @property
    def written_ns(self) -> int:
        """When the last line was written."""
        return os.fstat(self.fd).st_mtime_ns

    @property
    def cut(self) -> bool:
        """Whether the file has become shorter than what was read of it: it was begun again."""
        return self._decoder is None and os.fstat(self.fd).st_size < os.lseek(self.fd, 0, os.SEEK_CUR)

    def restart(self) -> None:
        """Read from the beginning again."""
        os.lseek(self.fd, 0, os.SEEK_SET)
        if self._decoder is not None:
            self._decoder = zlib.decompressobj(_GZIP)

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size` and some; empty at the end, and where a compressed file is damaged."""
        decoder = self._decoder
        if decoder is None:
            return os.read(self.fd, size)
        while not decoder.eof:
            data = decoder.unconsumed_tail or os.read(self.fd, BLOCK)
            if not data:
                return b""
            try:
                if out := decoder.decompress(data, size):
                    return out
            except zlib.error:
                return b""
        return b""

    def seek_end(self) -> None:
        """Pass over everything."""
        while self._decoder is not None and self.read(BLOCK):
            pass
        if self._decoder is None:
            os.lseek(self.fd, 0, os.SEEK_END)

    def seek_tail(self, lines: int, wanted: Callable[[bytes], bool]) -> int:
        """Go to where the last `lines` wanted lines begin; returns how many are missing because it has fewer."""
        if self._decoder is None:
            position, missing = _tail_offset(self.fd, os.fstat(self.fd).st_size, lines, wanted)
            os.lseek(self.fd, position, os.SEEK_SET)
            return missing
        # A compressed one is read twice: it is told by its lines where to stop skipping.
        count = sum(1 for line in self._lines() if wanted(line))
        self.restart()
        skip = count - lines
        self._skip(max(skip, 0), wanted)
        return max(-skip, 0)

    def _lines(self) -> Iterator[bytes]:
        rest = b""
        while data := self.read(BLOCK):
            *lines, rest = (rest + data).split(b"\n")
            yield from lines

    def _skip(self, count: int, wanted: Callable[[bytes], bool]) -> None:
        offset = 0
        for line in self._lines() if count else ():
            if not count:
                break
            count -= wanted(line)
            offset += len(line) + 1
        self.restart()
        while offset > 0:
            offset -= len(self.read(min(offset, BLOCK)))

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


def open_all(path: Path, after: int = -1) -> list[LogFile]:
    """Open the files with a higher number than `after`, oldest first; the current one has the number it will get."""
    current: LogFile | None = None
    numbers: set[int] = set()
    for _ in range(_ATTEMPTS):
        try:
            fd = _open(path)
        except FileNotFoundError:  # between two steps of a rotation, or there is none yet
            numbers = _numbers(path)
            break
        numbers = _numbers(path)
        current = LogFile(fd, max(numbers, default=0) + 1, compressed=False)
        if _is_still(path, current):
            break
        current.close()  # rotated between the two looks
        current = None
    found = [file for number in sorted(n for n in numbers if n > after) if (file := _open_number(path, number))]
    if current is not None and current.number > after:
        return [*found, current]
    if current is not None:
        current.close()
    return found


def _is_still(path: Path, file: LogFile) -> bool:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == file.identity


def _open(path: Path | str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _open_number(path: Path, number: int) -> LogFile | None:
    for suffix in ("", ".gz", ""):
        try:
            return LogFile(_open(f"{path}.{number}{suffix}"), number, compressed=bool(suffix))
        except FileNotFoundError:
            continue
    return None  # the oldest, deleted meanwhile


def _numbers(path: Path) -> set[int]:
    start = path.name + "."
    found: set[int] = set()
    try:
        entries = os.listdir(path.parent)
    except FileNotFoundError:
        return found
    for entry in entries:
        number = entry[len(start) :].removesuffix(".gz")
        if entry.startswith(start) and number.isascii() and number.isdigit():
            found.add(int(number))
    return found


def _tail_offset(fd: int, end: int, lines: int, wanted: Callable[[bytes], bool]) -> tuple[int, int]:
    """Where the last `lines` wanted lines before `end` start, and how many are still missing."""
    position, rest = end, b""
    while position > 0:
        size = min(BLOCK, position)
        position -= size
        block = os.pread(fd, size, position) + rest
        parts = block.split(b"\n")
        # parts[0] may be the tail of a line that starts earlier: look at it with the block before.
        first = 0 if position == 0 else 1
        offset = position + len(block)
        for i in range(len(parts) - 1, first - 1, -1):
            offset -= len(parts[i])
            if parts[i] and wanted(parts[i]):
                lines -= 1
                if lines == 0:
                    return offset, 0
            offset -= 1
        rest = parts[0]
    return 0, lines
