"""Bridges between the loop, which moves bytes of sockets, and threads, which read and write files.

    Inflow    chunks of a request's body -> a readable binary file for a thread
    Outflow   a writable binary file for a thread -> chunks of a reply

Both hold a bounded number of bytes: the faster side waits for the slower one.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from proa.errors import Cancelled

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: Enough that neither side waits for the other's scheduling; flat memory whatever the transfer's size.
WINDOW = 2 << 20
#: Small writes (tar headers, progress lines of one burst) leave together.
GATHER = 256 << 10


class Inflow(io.RawIOBase):
    """A file that a thread reads while the loop fills it."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._chunks = chunks
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._state = threading.Condition()
        self._room = asyncio.Event()
        self._ended = False
        self._abandoned = False
        self._failure: BaseException | None = None
        self._rest = memoryview(b"")
        self._task = self._loop.create_task(self._fill())

    async def _fill(self) -> None:
        failure: BaseException | None = None
        try:
            async for chunk in self._chunks:
                self._room.clear()
                with self._state:
                    self._queue.append(chunk)
                    self._queued += len(chunk)
                    full = self._queued >= WINDOW
                    self._state.notify()
                if full:
                    await self._room.wait()
                if self._abandoned:
                    return
        except (Exception, asyncio.CancelledError) as e:  # noqa: BLE001 handed to the reader, in its thread
            failure = e
        finally:
            with self._state:
                self._ended = True
                self._failure = failure
                self._state.notify()

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Wait for bytes and copy what fits; 0 at the end. Raises what reading the body raised."""
        view = memoryview(buffer).cast("B")
        if not self._rest and not self._next():
            return 0
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _next(self) -> bool:
        with self._state:
            while not self._queue and not self._ended:
                self._state.wait()
            if not self._queue:
                if isinstance(self._failure, asyncio.CancelledError):
                    raise Cancelled("the request was cancelled")
                if self._failure is not None:
                    raise self._failure
                return False
            chunk = self._queue.popleft()
            was_full = self._queued >= WINDOW
            self._queued -= len(chunk)
            room = was_full and self._queued < WINDOW
        self._rest = memoryview(chunk)
        if room:
            self._loop.call_soon_threadsafe(self._room.set)
        return True

    async def finish(self) -> None:
        """In the loop, after the reader is done: stop filling and let the rest of the body go."""
        self._abandoned = True
        self._room.set()
        self._task.cancel()
        await asyncio.wait((self._task,))


class Outflow(io.RawIOBase):
    """A file that a thread writes while the loop sends it: an async iterator of chunks.

    `end` (from the thread or the loop) ends the iteration, with a failure if there was one.
    When the loop no longer iterates, `abandon` makes the writer's next write raise Cancelled.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._state = threading.Condition()
        self._ready = asyncio.Event()
        self._ended = False
        self._abandoned = False
        self._failure: BaseException | None = None

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Buffer) -> int:
        """Queue the bytes, waiting while too many are queued. Raises Cancelled when nobody wants them any more."""
        chunk = bytes(data)
        with self._state:
            while self._queued >= WINDOW and not self._abandoned:
                self._state.wait()
            if self._abandoned:
                raise Cancelled("the client closed the connection", code="client-gone")
            first = not self._queue
            self._queue.append(chunk)
            self._queued += len(chunk)
        if first and chunk:
            self._loop.call_soon_threadsafe(self._ready.set)
        return len(chunk)

    def offer(self, data: bytes) -> bool:
        """Queue the bytes unless the window is full: for progress that the next report supersedes."""
        with self._state:
            if self._queued >= WINDOW and not self._abandoned:
                return False
        self.write(data)
        return True

    def end(self, failure: BaseException | None = None) -> None:
        """No more bytes will come. Any thread."""
        with self._state:
            self._ended = True
            self._failure = failure
        self._loop.call_soon_threadsafe(self._ready.set)

    def abandon(self) -> None:
        """Nobody reads any more. Any thread."""
        with self._state:
            self._abandoned = True
            self._queue.clear()
            self._queued = 0
            self._state.notify_all()

    async def started(self) -> None:
        """Wait for the first bytes or the end. Raises the failure when there were no bytes before it."""
        await self._ready.wait()
        with self._state:
            failed = self._failure is not None and not self._queue
        if failed and self._failure is not None:
            raise self._failure

    async def chunks(self) -> AsyncIterator[bytes]:
        """What was written, small writes gathered; after the last, raises the failure if there was one."""
        try:
            while True:
                await self._ready.wait()
                with self._state:
                    chunk = self._take()
                    over = self._ended and not self._queue
                    if not self._queue and not self._ended:
                        self._ready.clear()
                    self._state.notify()
                if chunk:
                    yield chunk
                if over:
                    break
            if self._failure is not None:
                raise self._failure
        finally:
            self.abandon()

    def _take(self) -> bytes:
        parts = []
        size = 0
        while self._queue and size < GATHER:
            parts.append(self._queue.popleft())
            size += len(parts[-1])
        self._queued -= size
        return parts[0] if len(parts) == 1 else b"".join(parts)
