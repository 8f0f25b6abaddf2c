"""Log files: one record a line of output, rotated by size, in one of two layouts.

json   `{"log":"text\\n","stream":"stdout","attrs":{…},"time":RFC 3339}`    Docker's json-file (moby jsonfilelog); a
       piece of a line has no newline in `log`; `attrs` only where labels or variables were asked for
cri    `RFC3339 stdout F text`                    Kubernetes' CRI logging format; P for a piece of a line
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Protocol

from proa.monitor.logs import rfc3339
from proa.monitor.rotation import Rotation

__all__ = ["CriLayout", "FileLog", "JsonLayout", "Layout", "open_file"]

_CONTROLS = bytes((*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20)))
_HEAD = b'{"log":"'


def open_file(path: str) -> int:
    """Open or create a log file for appending. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


class Layout(Protocol):
    """How records look; each ends with a newline and has no other."""

    def lines(self, stream: str, text: bytes) -> bytes:
        """Records of whole lines: `text` ends with a newline."""

    def piece(self, stream: str, text: bytes) -> bytes:
        """The record of a part of a line."""


class JsonLayout:
    """Docker's json-file; attributes are the same in every record."""

    def __init__(self, attributes: Mapping[str, str] | None = None) -> None:
        text = json.dumps(dict(sorted(attributes.items())), separators=(",", ":")) if attributes else ""
        self._attributes = f'"attrs":{text},' if text else ""

    def lines(self, stream: str, text: bytes) -> bytes:
        """As Layout.lines."""
        tail = b"\\n" + self._tail(stream)
        return _HEAD + _escape(text)[:-1].replace(b"\n", tail + _HEAD) + tail

    def piece(self, stream: str, text: bytes) -> bytes:
        """As Layout.piece."""
        return _HEAD + _escape(text) + self._tail(stream)

    def _tail(self, stream: str) -> bytes:
        return f'","stream":"{stream}",{self._attributes}"time":"{rfc3339(time.time_ns())}"}}\n'.encode()


class CriLayout:
    """The format that kubelet reads; bytes stay what they are."""

    def lines(self, stream: str, text: bytes) -> bytes:
        """As Layout.lines."""
        head = f"{rfc3339(time.time_ns())} {stream} F ".encode()
        return head + text[:-1].replace(b"\n", b"\n" + head) + b"\n"

    def piece(self, stream: str, text: bytes) -> bytes:
        """As Layout.piece."""
        return f"{rfc3339(time.time_ns())} {stream} P ".encode() + text + b"\n"


def _escape(text: bytes) -> bytes:
    """JSON-escape everything but newlines; bytes that are not UTF-8 become U+FFFD."""
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            text = text.decode("utf-8", "replace").encode()
    # replace() of an absent byte is one memchr: far cheaper than any per-byte table.
    text = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\r", b"\\r").replace(b"\t", b"\\t")
    if b"\x1b" in text:
        text = text.replace(b"\x1b", b"\\u001b")
    if len(text.translate(None, _CONTROLS)) != len(text):
        for code in _CONTROLS:
            text = text.replace(bytes((code,)), b"\\u%04x" % code)
    return text


class FileLog:
    """Appends records to a file, rotating it; a full disk loses lines, never the container.

    max_size: bytes at which the file is rotated, 0 for never; max_file: how many files to keep, this one included;
    compress: the older ones. A file that cannot be opened loses its lines, too.
    """

    __slots__ = ("_dropped", "_fd", "_layout", "_max_file", "_max_size", "_path", "_rotation", "_size")

    def __init__(self, path: str, layout: Layout, max_size: int, max_file: int, *, compress: bool = False) -> None:
        self._path = path
        self._layout = layout
        self._max_size = max_size
        self._max_file = max(1, max_file)
        self._rotation = Rotation(path, self._max_file, compress=compress)
        self._dropped = 0
        self._fd = -1
        self._size = 0
        self._open()

    def _open(self) -> None:
        try:
            self._fd = open_file(self._path)
        except OSError:
            return  # the next record tries again
        self._size = os.fstat(self._fd).st_size

    def lines(self, stream: str, text: bytes) -> None:
        """Append whole lines."""
        self._append(self._layout.lines(stream, text))

    def piece(self, stream: str, text: bytes) -> None:
        """Append a part of a line."""
        self._append(self._layout.piece(stream, text))

    def settle(self) -> None:
        """Compress what was rotated."""
        self._rotation.settle()

    def close(self) -> None:
        """Compress what was rotated and close the file."""
        self._rotation.finish()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, records: bytes) -> None:
        if self._dropped:
            count, self._dropped = self._dropped, 0
            text = b"proa: %d bytes of log were dropped, the log could not be written\n" % count
            self._put(self._layout.lines("stderr", text))
            if self._dropped:  # still full: count only the output, not our own note
                self._dropped = count + len(records)
                return
        if self._max_size <= 0:
            self._put(records)
            return
        while True:
            room = self._max_size - self._size
            if room <= 0:
                self._rotate()
                room = self._max_size
            if len(records) <= room:
                self._put(records)
                return
            end = records.index(b"\n", room - 1) + 1
            self._put(records[:end])
            records = records[end:]
            if not records:
                return

    def _put(self, records: bytes) -> None:
        if self._fd < 0:
            self._open()
            if self._fd < 0:
                self._dropped += len(records)
                return
        try:
            written = os.write(self._fd, records)
        except OSError:  # disk full, quota, I/O error: the container goes on
            written = 0
        if written < len(records):
            self._dropped += self._cut_back(records, written)
        else:
            self._size += written
            self._rotation.advance(2 * written)

    def _cut_back(self, records: bytes, written: int) -> int:
        """A short write left half a line: end the file at the last whole one. Returns the bytes lost."""
        kept = records.rfind(b"\n", 0, written) + 1
        if written != kept:
            os.ftruncate(self._fd, self._size + kept)
        self._size += kept
        return len(records) - kept

    def _rotate(self) -> None:
        try:
            if self._max_file == 1:
                os.ftruncate(self._fd, 0)
                self._size = 0
                return
            self._rotation.rotate()
        except OSError:
            # The name could not be changed (read-only, directory gone): go on in the open file.
            self._size = 0
            return
        os.close(self._fd)
        self._fd = -1
        self._open()
