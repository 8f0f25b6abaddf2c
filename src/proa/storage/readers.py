"""Readers of blobs: one that verifies what it reads, one that follows a blob while it is written."""

from __future__ import annotations

import io
import os
import threading
from typing import BinaryIO, cast

from proa.errors import Cancelled, Corrupt, ProaError
from proa.oci import Descriptor, Verifier


class VerifyingReader(io.RawIOBase):
    """Reads an open file from its start, once, and raises Corrupt at its end unless size and digest are right.

    It cannot seek and has no fileno: both would let bytes past the verifier.
    """

    def __init__(self, fd: int, descriptor: Descriptor) -> None:
        super().__init__()
        self._fd = fd
        self._verifier = Verifier(descriptor.digest, descriptor.size)

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """As RawIOBase.read, without its copy."""
        if size is None or size < 0:
            return self.readall()
        if self._fd < 0:
            raise ValueError("read of a closed reader")
        data = os.read(self._fd, size)
        if data:
            self._verifier.update(data)
        elif size:
            self._verifier.finish()
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` as far as one read(2) does. Raises Corrupt."""
        if self._fd < 0:
            raise ValueError("read of a closed reader")
        n = os.readv(self._fd, [buffer])
        if n:
            with memoryview(buffer) as view:
                self._verifier.update(view.cast("B")[:n])
        elif len(buffer):
            self._verifier.finish()
        return n

    def close(self) -> None:
        """Free the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()


class Growth:
    """How far an ingest is, for its followers: an offset that grows until it is complete or has failed."""

    def __init__(self, offset: int) -> None:
        self._changed = threading.Condition()
        self._offset = offset
        self._complete = False
        self._error: ProaError | None = None

    def advance(self, offset: int) -> None:
        """Bytes up to `offset` can be read."""
        with self._changed:
            self._offset = offset
            self._changed.notify_all()

    def complete(self) -> None:
        """All bytes are there and verified."""
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def fail(self, error: ProaError) -> None:
        """No more bytes will come; after complete() this changes nothing."""
        with self._changed:
            if not self._complete and self._error is None:
                self._error = error
            self._changed.notify_all()

    def wake(self) -> None:
        """Let waiting followers look again."""
        with self._changed:
            self._changed.notify_all()

    def wait_beyond(self, position: int, follower: Follower) -> int:
        """Block until there are bytes after `position` and return how many, 0 at the verified end. Raises."""
        with self._changed:
            while True:
                if follower.closed:
                    raise Cancelled("the reader of a growing blob was closed while it waited")
                if self._error is not None:
                    # A fresh object each time: one exception raised in several threads would mix their tracebacks.
                    raise type(self._error)(self._error.message, code=self._error.code, **self._error.fields)
                if self._offset > position:
                    return self._offset - position
                if self._complete:
                    return 0
                self._changed.wait()


class Follower(io.RawIOBase):
    """Reads a blob from its first byte while another thread writes it."""

    def __init__(self, fd: int, growth: Growth) -> None:
        super().__init__()
        self._fd = fd
        self._growth = growth
        self._position = 0
        self._descriptor = threading.Lock()

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """As RawIOBase.read, without its copy."""
        if size is None or size < 0:
            return self.readall()
        available = self._growth.wait_beyond(self._position, self) if size else 0
        if available == 0:
            return b""
        with self._descriptor:
            data = os.pread(self._open_fd(), min(size, available), self._position)
        self._advance(len(data))
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` with what is there, after waiting for at least a byte; 0 only at the verified end."""
        available = self._growth.wait_beyond(self._position, self) if len(buffer) else 0
        if available == 0:
            return 0
        with self._descriptor, memoryview(buffer) as view:
            n = os.preadv(self._open_fd(), [view.cast("B")[:available]], self._position)
        return self._advance(n)

    def _open_fd(self) -> int:
        if self._fd < 0:
            raise Cancelled("the reader of a growing blob was closed while it read")
        return self._fd

    def _advance(self, count: int) -> int:
        if count == 0:
            raise Corrupt("a growing blob was cut short under its reader", code="size-mismatch")
        self._position += count
        return count

    def close(self) -> None:
        """Stop; a read that waits in another thread raises Cancelled."""
        if not self.closed:
            super().close()
            self._growth.wake()
            with self._descriptor:
                os.close(self._fd)
                self._fd = -1


def as_binary(raw: io.RawIOBase) -> BinaryIO:
    """The same object under the type that callers name; RawIOBase has all of its methods."""
    return cast("BinaryIO", raw)
