"""A conversation with a process: what it writes, what is written to it."""

from __future__ import annotations

from typing import Any, Self

from proa.client.calls import exchange
from proa.client.flow import (
    AsyncTransport,
    Awaiting,
    Blocking,
    Channel,
    EndInput,
    Flow,
    Read,
    Transport,
    Write,
    operation,
)
from proa.client.frames import STDERR, Demultiplexer
from proa.client.http import query
from proa.client.models import Output

__all__ = ["AsyncSession", "Session"]


class SessionCore:
    """The operations of a session."""

    def __init__(self, transport: Any, channel: Channel, *, path: str, tty: bool) -> None:
        self._transport = transport
        self._channel = channel
        self._path = path
        self._demultiplexer = None if tty else Demultiplexer()
        self._ready: list[Output] = []

    @operation
    def read(self) -> Flow[Output | None]:
        """The next piece of output, None at the end.

        Raises Corrupt for a garbled stream.
        """
        while not self._ready:
            data = yield Read(self._channel)
            if not data:
                return None
            if self._demultiplexer is None:
                return Output("stdout", data)
            frames = self._demultiplexer.feed(data)
            self._ready = [Output("stderr" if number >= STDERR else "stdout", piece) for number, piece in frames]
        return self._ready.pop(0)

    @operation
    def write(self, data: bytes) -> Flow[None]:
        """Send bytes to the process's stdin; a process that has ended swallows them."""
        yield Write(self._channel, data)

    @operation
    def end_input(self) -> Flow[None]:
        """Close the process's stdin; its output goes on."""
        yield EndInput(self._channel)

    @operation
    def resize(self, rows: int, columns: int) -> Flow[None]:
        """Tell the process's terminal its size.

        Raises NotFound when the process is gone.
        """
        yield from exchange("POST", f"{self._path}/resize{query(h=rows, w=columns)}")

    def close(self) -> None:
        """Leave; the process goes on."""
        self._channel.close()


class Session(SessionCore, Blocking):
    """A conversation; iterate over its output, leave it with `close` or `with`."""

    _transport: Transport

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Output:
        output = self.read()
        if output is None:
            raise StopIteration
        return output


class AsyncSession(SessionCore, Awaiting):
    """A conversation; iterate over its output with `async for`, leave it with `close` or `async with`."""

    _transport: AsyncTransport

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Output:
        output = await self.read()
        if output is None:
            raise StopAsyncIteration
        return output
