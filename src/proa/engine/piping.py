"""What one side writes, the other reads, in two threads: for libraries that ask for a file to write and one to read."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["piped"]


@contextmanager
def piped(produce: Callable[[BinaryIO], object]) -> Iterator[BinaryIO]:
    """What `produce` writes in a thread, to be read here; its failure is raised where the reading would have ended."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    source = _Piped(read_fd)

    def write() -> None:
        try:
            with os.fdopen(write_fd, "wb", buffering=1 << 20) as sink:
                produce(sink)
        except BrokenPipeError:
            pass  # the reader gave up, and says why
        except Exception as error:  # noqa: BLE001 - raised by the reader
            source.failure = error

    thread = threading.Thread(target=write, name="archive")
    thread.start()
    source.writer = thread
    try:
        yield cast("BinaryIO", source)
    finally:
        source.close()
        thread.join()


class _Piped(io.RawIOBase):
    """The reading end of a pipe whose end of file counts only when the writer did not fail."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self.failure: Exception | None = None
        self.writer: threading.Thread | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Read what is there; at the end, raises what the writer raised."""
        count = os.readv(self._fd, [buffer])
        if not count:
            if self.writer is not None:
                self.writer.join()
            if self.failure is not None:
                raise self.failure
        return count

    def close(self) -> None:
        """Close the pipe: the writer's next write fails."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()
