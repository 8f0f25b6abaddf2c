"""Read a container's log back: json-file lines, across rotations, following while it grows.

Files, newest first: `ID-json.log`, `ID-json.log.1`, `ID-json.log.2` …; each line is
`{"log":"text\\n","stream":"stdout","time":"RFC 3339"}` as the monitor's json-file driver writes it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from proa.engine.clock import parse_rfc3339
from proa.engine.types import LogEntry, LogRequest
from proa.linux import inotify

BLOCK = 64 << 10
CHUNK = 1 << 20
STREAMS = {"stdout": 1, "stderr": 2}


class _Line(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    time: str = ""


_decode = msgspec.json.Decoder(_Line).decode


class LogReader:
    """One reader of one log. `read` never blocks; `fileno` is readable when there may be more.

    `ended` tells whether the container has ended, so that following can end too.
    """

    def __init__(self, path: Path, request: LogRequest, ended: Callable[[], bool]) -> None:
        self._path = path
        self._request = request
        self._ended = ended
        self._watch = -1
        self._rest = b""
        self.finished = False
        if request.follow:
            # Watch before the first read, so that nothing falls between them; the directory, because of rotation.
            self._watch = inotify.inotify_init()
            mask = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO
            inotify.inotify_add_watch(self._watch, path.parent, mask)
        self._files = self._open_since()
        if request.tail >= 0:
            self._seek_tail(request.tail)

    def _open_since(self, last: int = -1) -> list[int]:
        """Open the files after the one open as `last` (default: all), oldest first.

        They are opened newest first: a rotation meanwhile then shows a file twice, which is noticed, and hides none.
        """
        known = {_identity(last)} if last >= 0 else set()
        found: list[int] = []
        for number in itertools.count():
            try:
                fd = os.open(f"{self._path}.{number}" if number else self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if number:
                    break
                continue  # between two steps of a rotation
            identity = _identity(fd)
            if identity in known:
                os.close(fd)
                if last >= 0 and identity == _identity(last):
                    break
                continue
            known.add(identity)
            found.insert(0, fd)
        return found

    def fileno(self) -> int:
        """A descriptor for a poller, -1 when not following."""
        return self._watch

    def _seek_tail(self, lines: int) -> None:
        """Position the open files so that the last `lines` records that pass the stream filter remain."""
        keep: list[int] = []
        for fd in reversed(self._files):
            position = os.fstat(fd).st_size
            if lines > 0:
                position, lines = _tail_offset(fd, position, lines, self._wanted_stream)
                os.lseek(fd, position, os.SEEK_SET)
                keep.insert(0, fd)
            elif not keep:
                os.lseek(fd, 0, os.SEEK_END)
                keep.insert(0, fd)
            else:
                os.close(fd)
        self._files = keep

    def _wanted_stream(self, line: bytes) -> bool:
        if self._request.stdout and self._request.stderr:
            return True
        return (b'"stream":"stderr"' in line) is self._request.stderr

    def read(self) -> list[LogEntry]:
        """What is there now, at most some MiB; an empty list means nothing yet, or the end when `finished`."""
        if self._watch >= 0:
            inotify.read_events(self._watch)
        ended = self._ended()
        out: list[LogEntry] = []
        budget = 4 * CHUNK
        if not self._files and self._request.follow:
            self._files = self._open_since()
        while self._files and budget > 0:
            data = os.read(self._files[0], CHUNK)
            if data:
                budget -= len(data)
                self._parse(data, out)
                if self.finished:
                    return out
            elif len(self._files) > 1:
                os.close(self._files.pop(0))
                self._rest = b""
            elif not (self._request.follow and self._moved_on()):
                break
        else:
            if self._files:
                return out
        if not out and (not self._request.follow or ended):
            self.finished = True
        return out

    def _moved_on(self) -> bool:
        """At the end of the newest file we know: whether there is a newer one, or it was cut to be begun again."""
        self._files += self._open_since(self._files[0])
        if len(self._files) == 1 and os.fstat(self._files[0]).st_size < os.lseek(self._files[0], 0, os.SEEK_CUR):
            os.lseek(self._files[0], 0, os.SEEK_SET)
            self._rest = b""
            return True
        return len(self._files) > 1

    def _parse(self, data: bytes, out: list[LogEntry]) -> None:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        request = self._request
        for raw in lines:
            try:
                line = _decode(raw)
            except (msgspec.DecodeError, msgspec.ValidationError):
                continue  # a line cut by power loss or a full disk
            stream = STREAMS.get(line.stream, 1)
            if (stream == 1 and not request.stdout) or (stream == 2 and not request.stderr):
                continue
            if request.since or request.until:
                when = parse_rfc3339(line.time)
                if when < request.since:
                    continue
                if request.until and when > request.until:
                    self.finished = True
                    return
            # Bytes that were no UTF-8 travel through JSON as lone surrogates replaced by U+FFFD, as in Docker.
            out.append(LogEntry(stream=stream, time=line.time, data=line.log.encode("utf-8", "replace")))

    def close(self) -> None:
        """Close every file."""
        for fd in self._files:
            os.close(fd)
        self._files = []
        if self._watch >= 0:
            os.close(self._watch)
            self._watch = -1


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


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
