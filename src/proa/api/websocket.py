"""A web socket between a client and a container's stream (RFC 6455, by aiohttp)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from aiohttp.http_websocket import WSMsgType
from aiohttp.web_ws import WebSocketResponse

from proa.api.aiohttp_server import BaseRequest, StreamResponse
from proa.api.connection import Connection
from proa.api.dispatch import error_line
from proa.api.handover import hand_over

if TYPE_CHECKING:
    from proa.api.messages import WebSocket

__all__ = ["carry"]

_PIECE = 64 << 10
# A message is what one keystroke or one paste makes; more is no terminal.
_LARGEST_MESSAGE = 4 << 20
_HEAD = 8


async def carry(http: BaseRequest, connection: Connection, outcome: WebSocket) -> StreamResponse:
    """Shake hands, connect, and pass messages both ways until one side ends."""
    answer = WebSocketResponse(autoping=True, max_msg_size=_LARGEST_MESSAGE, compress=False)
    await answer.prepare(http)
    connection.release(http.content)
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    try:
        try:
            await hand_over(outcome.hijack, theirs.detach(), b"")
        except Exception as error:  # noqa: BLE001 the head is out: the words go into the stream, as in an attach
            await answer.send_bytes(error_line(error).encode("utf-8", "backslashreplace"))
            return answer
        output = asyncio.ensure_future(_output(reader, answer, framed=outcome.hijack.framed))
        entry = asyncio.ensure_future(_input(answer, writer))
        await asyncio.wait((output, entry), return_when=asyncio.FIRST_COMPLETED)
        for task in (output, entry):
            task.cancel()
        await asyncio.wait((output, entry))
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await answer.close()
    return answer


async def _output(reader: asyncio.StreamReader, answer: WebSocketResponse, *, framed: bool) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            if framed:
                head = await reader.readexactly(_HEAD)
                left = int.from_bytes(head[4:], "big")
                while left:
                    data = await reader.read(min(left, _PIECE))
                    if not data:
                        return
                    left -= len(data)
                    await answer.send_bytes(data)
            else:
                data = await reader.read(_PIECE)
                if not data:
                    return
                await answer.send_bytes(data)


async def _input(answer: WebSocketResponse, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        async for message in answer:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                break
            data = message.data
            writer.write(data.encode() if isinstance(data, str) else data)
            await writer.drain()
