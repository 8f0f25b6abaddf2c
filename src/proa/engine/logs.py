"""Read a container's log back: any of its files, across rotations, following while it grows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from proa.engine.clock import parse_rfc3339_ns
from proa.engine.log_files import SHAPES, LogFile, open_all, parse_of
from proa.engine.types import LogEntry, LogRequest
from proa.linux import inotify

__all__ = ["LogReader"]

CHUNK = 1 << 20


class LogReader:
    """One reader of one log. `read` never blocks; `fileno` is readable when there may be more.

    layout: `json` or `cri`. `ended` tells whether the container has ended, so that following can end too.
    """

    def __init__(self, path: Path, request: LogRequest, ended: Callable[[], bool], layout: str = "json") -> None:
        self._path = path
        self._request = request
        self._ended = ended
        self._parse_line = parse_of(layout)
        self._is_stderr = SHAPES[layout if layout in SHAPES else "cri"].stderr.search
        self._watch = -1
        self._rest = b""
        self._done = -1  # the number of the last file that was read to its end
        self.finished = False
        if request.follow:
            # Watch before the first read, so that nothing falls between them; the directory, because of rotation.
            self._watch = inotify.inotify_init()
            mask = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO
            inotify.inotify_add_watch(self._watch, path.parent, mask)
        self._files = self._open()
        if request.tail >= 0:
            self._seek_tail(request.tail)

    def _open(self) -> list[LogFile]:
        files = open_all(self._path, self._done)
        while len(files) > 1 and files[0].written_ns < self._request.since_ns:
            files.pop(0).close()  # all of it is older
        return files

    def fileno(self) -> int:
        """A descriptor for a poller, -1 when not following."""
        return self._watch

    def _seek_tail(self, lines: int) -> None:
        """Position the open files so that the last `lines` records that pass the stream filter remain."""
        keep: list[LogFile] = []
        for file in reversed(self._files):
            if lines > 0:
                lines = file.seek_tail(lines, self._wanted_stream)
                keep.insert(0, file)
            elif not keep:
                file.seek_end()
                keep.insert(0, file)
            else:
                file.close()
        self._files = keep

    def _wanted_stream(self, line: bytes) -> bool:
        if self._request.stdout and self._request.stderr:
            return True
        return (self._is_stderr(line) is not None) is self._request.stderr

    def read(self) -> list[LogEntry]:
        """What is there now, at most some MiB; an empty list means nothing yet, or the end when `finished`."""
        if self._watch >= 0:
            inotify.read_events(self._watch)
        ended = self._ended()
        out: list[LogEntry] = []
        budget = 4 * CHUNK
        if not self._files and self._request.follow:
            self._files = self._open()
        while self._files and budget > 0:
            data = self._files[0].read(CHUNK)
            if data:
                budget -= len(data)
                self._parse(data, out)
                if self.finished:
                    return out
            elif len(self._files) > 1:
                self._leave_first()
            elif not (self._request.follow and self._moved_on()):
                break
        else:
            if self._files:
                return out
        if not out and (not self._request.follow or ended):
            self.finished = True
        return out

    def _leave_first(self) -> None:
        file = self._files.pop(0)
        self._done = file.number
        file.close()
        self._rest = b""

    def _moved_on(self) -> bool:
        """At the end of the newest file we know: whether there is a newer one, or it was cut to be begun again."""
        file = self._files[0]
        if file.cut:
            file.restart()
            self._rest = b""
            return True
        self._files += open_all(self._path, file.number)
        return len(self._files) > 1

    def _parse(self, data: bytes, out: list[LogEntry]) -> None:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        request = self._request
        for raw in lines:
            entry = self._parse_line(raw)
            if entry is None:
                continue
            if (entry.stream == 1 and not request.stdout) or (entry.stream == 2 and not request.stderr):
                continue
            if request.since_ns or request.until_ns:
                when_ns = parse_rfc3339_ns(entry.time)
                if when_ns < request.since_ns:
                    continue
                if request.until_ns and when_ns > request.until_ns:
                    self.finished = True
                    return
            out.append(entry)

    def close(self) -> None:
        """Close every file."""
        for file in self._files:
            file.close()
        self._files = []
        if self._watch >= 0:
            os.close(self._watch)
            self._watch = -1
