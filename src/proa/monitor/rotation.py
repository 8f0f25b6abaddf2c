"""Rotated log files: named by a number that only grows, the oldest deleted, the others compressed little by little.

NAME            written now          rotate:  NAME -> NAME.7, so that a reader knows a file by its number for good
NAME.6          to be compressed     while the next is written, a bit for each record: output is not kept waiting
NAME.5.gz       compressed           made as NAME.5.part, then renamed, then NAME.5 is deleted
"""

from __future__ import annotations

import os
import zlib
from typing import Any

__all__ = ["Rotation"]

_PIECE = 256 << 10
# 0.4 s of a 100 MB log of ordinary text, for 5 to 20 times less space; more effort gains a tenth of that.
_LEVEL = 1
_GZIP = 31


class Rotation:
    """The older files of one log. path: the current one; max_file: how many to keep, that one included."""

    __slots__ = ("_compress", "_job", "_last", "_max_file", "_path", "_waiting")

    def __init__(self, path: str, max_file: int, *, compress: bool) -> None:
        self._path = path
        self._max_file = max_file
        self._compress = compress
        self._last = -1  # the newest number in use, once it was looked up
        self._waiting: list[int] = []
        self._job: _Compression | None = None

    def rotate(self) -> None:
        """Give the current file a number. Raises OSError."""
        last = self._look()
        os.rename(self._path, f"{self._path}.{last + 1}")
        self._last = last + 1
        if self._compress:
            self._waiting.append(self._last)
        for number in self._numbers():
            if number <= self._last - (self._max_file - 1):
                self._delete(number)

    def advance(self, size: int) -> None:
        """Compress so many bytes of what waits."""
        while size > 0 and self._waiting:
            try:
                if self._job is None:
                    self._job = _Compression(f"{self._path}.{self._waiting[0]}")
                done = self._job.advance()
            except OSError:  # gone, or no space for it: it stays as it is
                self._drop_job()
                self._waiting.pop(0)
                return
            if not done:
                self._job = None
                self._waiting.pop(0)
            size -= done

    def settle(self) -> None:
        """Compress all that was rotated here."""
        while self._waiting:
            self.advance(1 << 30)

    def finish(self) -> None:
        """Compress also what an earlier writer of this log left."""
        if self._compress and self._last < 0:
            try:
                self._look()
            except OSError:
                return  # the directory is gone
        self.settle()

    def _look(self) -> int:
        if self._last < 0:
            numbers = self._numbers()
            self._last = max(numbers, default=0)
            if self._compress:
                self._waiting = [n for n in sorted(numbers) if os.path.exists(f"{self._path}.{n}")]
        return self._last

    def _numbers(self) -> set[int]:
        directory, name = os.path.split(self._path)
        found = set()
        for entry in os.listdir(directory):
            number = entry[len(name) + 1 :].removesuffix(".gz")
            if entry.startswith(name + ".") and number.isascii() and number.isdigit():
                found.add(int(number))
        return found

    def _delete(self, number: int) -> None:
        if self._waiting and self._waiting[0] == number:
            self._drop_job()
        if number in self._waiting:
            self._waiting.remove(number)
        for suffix in ("", ".gz"):
            try:
                os.unlink(f"{self._path}.{number}{suffix}")
            except OSError:
                pass

    def _drop_job(self) -> None:
        if self._job is not None:
            self._job.abandon()
            self._job = None


class _Compression:
    """One file on its way to being a compressed one. Raises OSError."""

    __slots__ = ("_encoder", "_path", "_source", "_target")

    def __init__(self, path: str) -> None:
        self._path = path
        self._encoder: Any = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            self._target = os.open(f"{path}.part", flags, 0o600)
        except OSError:
            os.close(self._source)
            raise

    def advance(self) -> int:
        """Compress some more; 0 when the file has taken the other's place."""
        piece = os.read(self._source, _PIECE)
        if piece:
            self._write(self._encoder.compress(piece))
            return len(piece)
        self._write(self._encoder.flush())
        # As old as what it holds: a reader who wants later lines passes it over.
        status = os.fstat(self._source)
        os.utime(self._target, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.rename(f"{self._path}.part", f"{self._path}.gz")
        os.unlink(self._path)
        self._close()
        return 0

    def abandon(self) -> None:
        """Leave the file as it is."""
        self._close()
        try:
            os.unlink(f"{self._path}.part")
        except OSError:
            pass

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._target, view) :]

    def _close(self) -> None:
        os.close(self._source)
        os.close(self._target)
