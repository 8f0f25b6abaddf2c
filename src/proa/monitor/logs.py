"""The json-file log: one JSON object per line of output, rotated by size.

Format (Docker's json-file, moby daemon/logger/jsonfilelog): `{"log":"text\\n","stream":"stdout","time":RFC3339}`.
A line longer than 16 KiB is written in pieces whose `log` has no newline, so is the last, unfinished line.
Lines are encoded in bulk: everything one read returned gets one time stamp and one write.
"""

from __future__ import annotations

import os
import time

__all__ = ["JsonFileLog", "LINE_LIMIT_BYTES", "log_path", "open_log", "rfc3339"]

LINE_LIMIT_BYTES = 16 << 10
_CONTROLS = bytes((*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20)))
_HEAD = b'{"log":"'

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


def log_path(directory: str, container_id: str) -> str:
    """Path of a container's current log; older ones append `.1`, `.2`, …"""
    return f"{directory}/{container_id}-json.log"


def open_log(path: str) -> int:
    """Open or create a log file for appending. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


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


def _character_boundary(text: bytes, end: int) -> int:
    """Largest cut <= end that does not split a UTF-8 sequence."""
    cut = end
    while cut > end - 4 and cut > 0 and text[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut if text[cut] & 0xC0 != 0x80 and cut > 0 else end


class JsonFileLog:
    """Appends output to a log file, rotating it; a full disk loses lines, never the container.

    max_size: bytes at which the file is rotated, 0 for never; max_file: how many files to keep, this one included.
    `unfinished` has the beginning of a line by stream. A file that cannot be opened loses its lines, too.
    """

    __slots__ = ("_dropped", "_fd", "_max_file", "_max_size", "_path", "_size", "unfinished")

    def __init__(self, path: str, max_size: int, max_file: int) -> None:
        self._path = path
        self._max_size = max_size
        self._max_file = max(1, max_file)
        self.unfinished: dict[str, bytes] = {}
        self._dropped = 0
        self._fd = -1
        self._size = 0
        self._open()

    def _open(self) -> None:
        try:
            self._fd = open_log(self._path)
        except OSError:
            return  # the next record tries again
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: str, chunk: bytes) -> None:
        """Log what was just read from `stream` ("stdout" or "stderr")."""
        carry = self.unfinished
        if carry:
            held = carry.pop(stream, None)
            if held is not None:
                chunk = held + chunk
        tail = f'","stream":"{stream}","time":"{rfc3339(time.time_ns())}"}}\n'.encode()
        size = len(chunk)
        if size <= LINE_LIMIT_BYTES:
            cut = chunk.rfind(b"\n") + 1
            if cut:
                self._append(_lines(chunk if cut == size else chunk[:cut], tail))
            if cut < size:
                carry[stream] = chunk[cut:]
            if size - cut < LINE_LIMIT_BYTES:
                return
            cut, chunk = 0, carry.pop(stream)
        records = []
        start = 0
        while size - start >= LINE_LIMIT_BYTES:
            limit = start + LINE_LIMIT_BYTES
            cut = chunk.rfind(b"\n", start, limit + 1) + 1
            if cut:
                records.append(_lines(chunk[start:cut], tail))
            else:
                cut = _character_boundary(chunk, limit) if limit < size else limit
                records.append(_HEAD + _escape(chunk[start:cut]) + tail)
            start = cut
        cut = chunk.rfind(b"\n", start) + 1
        if cut:
            records.append(_lines(chunk[start:cut], tail))
            start = cut
        if start < size:
            carry[stream] = chunk[start:]
        self._append(b"".join(records))

    def finish(self, stream: str) -> None:
        """The stream ended: log its last, unterminated line."""
        held = self.unfinished.pop(stream, None)
        if held:
            tail = f'","stream":"{stream}","time":"{rfc3339(time.time_ns())}"}}\n'.encode()
            self._append(_HEAD + _escape(held) + tail)

    def close(self) -> None:
        """Log what is still held and close the file."""
        for stream in tuple(self.unfinished):
            self.finish(stream)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, records: bytes) -> None:
        if self._dropped:
            count, self._dropped = self._dropped, 0
            tail = f'","stream":"stderr","time":"{rfc3339(time.time_ns())}"}}\n'.encode()
            note = _HEAD + b"proa: %d bytes of log were dropped, the log could not be written\\n" % count + tail
            self._put(note)
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

    def _cut_back(self, records: bytes, written: int) -> int:
        """A short write left half a line: end the file at the last whole one. Returns the bytes lost."""
        kept = records.rfind(b"\n", 0, written) + 1
        if written != kept:
            os.ftruncate(self._fd, self._size + kept)
        self._size += kept
        return len(records) - kept

    def _rotate(self) -> None:
        path = self._path
        try:
            if self._max_file == 1:
                os.ftruncate(self._fd, 0)
                self._size = 0
                return
            for number in range(self._max_file - 1, 1, -1):
                try:
                    os.rename(f"{path}.{number - 1}", f"{path}.{number}")
                except FileNotFoundError:
                    pass
            os.rename(path, f"{path}.1")
        except OSError:
            # The names could not be moved (read-only, directory gone): go on in the open file.
            self._size = 0
            return
        os.close(self._fd)
        self._fd = -1
        self._open()


def _lines(text: bytes, tail: bytes) -> bytes:
    """Encode whole lines: `text` ends with a newline."""
    tail = b"\\n" + tail
    return _HEAD + _escape(text)[:-1].replace(b"\n", tail + _HEAD) + tail
