"""One client connection: aiohttp's HTTP/1.1 protocol, with what the Docker API asks of it besides.

- A client may shut down its sending half and still read: what is in flight is answered, then the connection closes.
- After an upgrade request (attach, exec) the bytes belong to the container. aiohttp's parser drops what follows such a
  request in the same segment, so heads are fed to it apart: what comes behind is held here, and reading stops.
- A connection can be let go of: `detach` hands out a duplicate of its descriptor and closes ours without a shutdown.

Uses _request_count, _waiter, _close and _messages of aiohttp 3.14: its minor version is pinned for that.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from typing import Any

from proa.api.aiohttp_server import (
    BaseRequest,
    RawRequestMessage,
    RequestHandler,
    RequestPayloadError,
    Response,
    Server,
    StreamReader,
    StreamResponse,
)
from proa.api.messages import JSON, Reply
from proa.api.routes import HEADERS
from proa.api.sockets.doors import Door, Peer, peer_of
from proa.errors import Unavailable

#: Half a head, and then nothing: nobody honest is that slow on a unix socket.
HEAD_SECONDS = 30.0
#: How long a detached connection's head may take to go out.
FLUSH_SECONDS = 10.0
_HEAD_END = b"\r\n\r\n"
# Operations that take over the connection even without an Upgrade header.
_TAKES_OVER = re.compile(
    r"(?:(?:/v[0-9.]+)?/(?:containers/[^/?]+/attach|exec/[^/?]+/start)|/proa/v1/containers/(?:run|[^/?]+/exec))(?:\?|$)"
)


class Connection(RequestHandler):
    """aiohttp's protocol of one connection; `gone` is set when the client closed it, half or all."""

    __slots__ = (
        "_body_left",
        "_carry",
        "_held",
        "_holding",
        "_on_gone",
        "_payload",
        "_slow_head",
        "_takes_over",
        "door",
        "gone",
    )

    def __init__(self, manager: Server, door: Door, *, loop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        super().__init__(manager, loop=loop, **kwargs)
        self.door = door
        self.gone = asyncio.Event()
        self._on_gone: Callable[[], object] | None = None
        self._payload: StreamReader | None = None  # the body being received
        self._body_left = 0  # of a body with a length: bytes still to come
        self._carry = b""  # the last bytes of a head that has not ended yet
        self._takes_over = False  # the last request ends HTTP on this connection
        self._holding = False
        self._held = b""
        self._slow_head: asyncio.TimerHandle | None = None

    # -- what asyncio calls

    def eof_received(self) -> bool | None:  # type: ignore[override]  # asyncio reads the result
        """The client shut down its sending half; True keeps ours open, as Go's server does."""
        self._went()
        self._body_broke("the connection was closed before its end")
        busy = self._request_count > 0 and (self._waiter is None or self._waiter.done())
        if busy:
            self._close = True  # answer what is in flight, then close
        return busy

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed, by whoever."""
        self._went()
        self._head_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came: to the parser, one head at a time, until a request takes the connection over."""
        if self._payload_parser is not None:  # a web socket
            super().data_received(data)
            return
        if not data:  # aiohttp: parse on with what a full buffer held back
            super().data_received(data)
            return
        while data and not self._holding:
            if self._body_left:
                piece, data = data[: self._body_left], data[self._body_left :]
                self._body_left -= len(piece)
                self._feed_body(piece)
                if not self._body_left and self._takes_over:
                    self.hold()
            elif self._payload is not None and not self._payload.is_eof():
                self._feed_body(data)  # chunked, and perhaps a pipelined request behind it
                self._carry, data = data[-3:], b""
                if self._takes_over and self._payload.is_eof():
                    self.hold()
            else:
                data = self._feed_head(data)
        if self._holding and data:
            self._held += data
            self.hold()  # reading the body may have resumed the transport: one segment at most gets here

    def _feed_body(self, data: bytes) -> None:
        """Give the parser bytes of a body; broken framing is told to whoever reads it, and ends the connection."""
        before = len(self._messages)
        super().data_received(data)
        broken = len(self._messages) > before and not isinstance(self._messages[-1][0], RawRequestMessage)
        if broken and self._body_broke("its framing is broken"):
            self._messages.pop()  # its own reply would follow the one that the request gets
            self._close = True

    def _body_broke(self, why: str) -> bool:
        """Tell whoever reads the body that the rest will not come; False when it is complete."""
        if self._payload is None or self._payload.is_eof():
            return False
        self._payload.set_exception(RequestPayloadError(why))
        self._payload.feed_eof()  # nothing is left for aiohttp to read and throw away
        return True

    def _feed_head(self, data: bytes) -> bytes:
        """Give the parser one request head, or the part of it that is here; returns what follows."""
        end = (self._carry + data).find(_HEAD_END)
        if end < 0:
            self._carry = (self._carry + data)[-3:]
            if self._slow_head is None:
                self._slow_head = self._loop.call_later(HEAD_SECONDS, self.force_close)
            super().data_received(data)
            return b""
        end += len(_HEAD_END) - len(self._carry)
        self._carry = b""
        self._head_arrived()
        before = self._request_count
        super().data_received(data[:end])
        if self._request_count > before:
            self._message_begins(*self._messages[-1])
        return data[end:]

    def _message_begins(self, message: Any, payload: StreamReader) -> None:
        if not isinstance(message, RawRequestMessage):
            return  # bad HTTP: it is answered and the connection closed
        self._payload = payload
        self._body_left = 0 if message.chunked or payload.is_eof() else _length(message)
        self._takes_over = message.upgrade or (message.method == "POST" and _TAKES_OVER.match(message.path) is not None)
        if self._takes_over and payload.is_eof():
            self.hold()

    def _head_arrived(self) -> None:
        if self._slow_head is not None:
            self._slow_head.cancel()
            self._slow_head = None

    def _went(self) -> None:
        self.gone.set()
        callback, self._on_gone = self._on_gone, None
        if callback is not None:
            callback()

    # -- what our server calls

    def peer(self) -> Peer | None:
        """Who connected, where it is asked: at scoped sockets."""
        if self.door.scope is None or self.transport is None:
            return None
        return peer_of(self.transport.get_extra_info("socket"))

    def when_gone(self, callback: Callable[[], object]) -> None:
        """Call back once when the client closes the connection, half or all; at once when it has."""
        if self.gone.is_set():
            callback()
        else:
            self._on_gone = callback

    def ending(self) -> None:
        """The service stops: end what is endless, answer what is in flight, take no further request."""
        self._went()
        self.close()

    def hold(self) -> None:
        """Read no further: what the client sends from here on may belong to a container."""
        self._holding = True
        if self.transport is not None and self.transport.is_reading():
            self.transport.pause_reading()

    def release(self, body: StreamReader) -> None:
        """Go on as HTTP after all; what was held is parsed now.

        body: of the request that is answered. It may still be to come, where the head was enough to refuse; it is to
        hold nothing then. What a later request holds is not this one's to release.
        """
        if body is not self._payload:
            return
        self._takes_over = False
        if not self._holding:
            return
        self._holding = False
        held, self._held = self._held, b""
        if held:
            self.data_received(held)
        if not self._holding and not self._reading_paused and not self._buffer_paused:
            self._resume_transport_reading()

    async def detach(self, head: bytes) -> tuple[int, bytes]:
        """Send `head` and give the connection away: its descriptor (the caller's from now on) and what was held.

        `let_go` is to follow. Raises Unavailable when the client is gone or does not read.
        """
        self.hold()
        transport = self.transport
        if transport is None or transport.is_closing():
            raise Unavailable("the client closed the connection", code="client-gone")
        transport.write(head)
        deadline = self._loop.time() + FLUSH_SECONDS
        while transport.get_write_buffer_size():
            if transport.is_closing() or self._loop.time() > deadline:
                raise Unavailable("the client does not read its connection", code="client-gone")
            await asyncio.sleep(0.01)
        if transport.is_closing():
            raise Unavailable("the client closed the connection", code="client-gone")
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
        early, self._held = self._held, b""
        return descriptor, early

    def let_go(self) -> None:
        """Close our own descriptor of a detached connection; it is not shut down, so the client notices nothing."""
        if self.transport is not None:
            self.transport.abort()  # in the next turn of the loop; no shutdown(2), no data thrown away

    # -- what aiohttp calls

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """A body that broke off while it was being thrown away is no news: its request has been answered."""
        if not isinstance(kwargs.get("exc_info"), RequestPayloadError):
            super().log_exception(*args, **kwargs)

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """Bad HTTP and defects of the serving code, answered like every other failure."""
        if request.writer.output_size > 0:
            raise ConnectionError("the reply had begun already")
        if status >= 500:
            self.log_exception("request failed before its operation: %s", exc, exc_info=exc)
            message = "internal error"
        text = (message or "bad request").split("\n", 1)[0].strip()[:200]
        reply = Reply(status=status, value={"message": f"bad request: {text}" if status == 400 else text})
        body, _ = reply.payload()
        response = Response(status=status, body=body, headers=HEADERS | {"Content-Type": JSON})
        response.force_close()
        return response


def _length(message: Any) -> int:
    text = message.headers.get("Content-Length", "0")
    return int(text) if text.isascii() and text.isdigit() else 0
