"""What an operation is given and what it may answer; nothing here knows a socket.

Request   method, path, query, headers, body, API version, and `gone` (set when the client went away)
Reply     a whole answer: JSON, bytes or nothing
Stream    a head that is sent at once, then chunks as they come
Hijack    a head, then the connection itself: its descriptor passes to whoever serves it from there on
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from proa.api.query import Query
from proa.api.sockets.doors import Door, Peer
from proa.errors import Invalid

Version = tuple[int, int]

JSON = "application/json"
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"
TAR = "application/x-tar"
TEXT = "text/plain; charset=utf-8"

#: JSON requests are configurations: Docker's largest, a create with thousands of variables, stays far below this.
JSON_LIMIT = 4 << 20
SMALL_JSON = 64 << 10


class Body(Protocol):
    """The bytes a client sends, read once."""

    async def read(self, limit: int) -> bytes:
        """All of it. Raises Invalid (`body-too-large`) past `limit` bytes."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """As it comes, for bodies of any length."""
        ...


class Request(msgspec.Struct, kw_only=True):
    """One request after version and route were found.

    door: the socket it came by; peer: who connected, for a scoped one.
    """

    method: str
    path: str
    query: Query
    headers: Mapping[str, str]
    body: Body
    gone: asyncio.Event
    version: Version = (0, 0)
    variables: Mapping[str, str] = {}
    door: Door | None = None
    peer: Peer | None = None

    def __getitem__(self, name: str) -> str:
        """A variable of the route's template, percent-decoded."""
        return self.variables[name]

    def upgrading(self) -> bool:
        """True when the client asked for the connection to be upgraded."""
        return "upgrade" in self.headers.get("connection", "").lower() and "upgrade" in self.headers


class Reply(msgspec.Struct, kw_only=True):
    """A whole answer; `value` becomes JSON unless it is bytes or None."""

    status: int = 200
    value: Any = None
    content_type: str = ""
    headers: dict[str, str] = {}

    def payload(self) -> tuple[bytes, str]:
        """The body and its content type."""
        if self.value is None:
            return b"", self.content_type
        if isinstance(self.value, bytes):
            return self.value, self.content_type or TEXT
        try:
            body = msgspec.json.encode(self.value)
        except UnicodeEncodeError:  # a file's name, say, which need not be text
            body = msgspec.json.encode(_as_text(msgspec.to_builtins(self.value)))
        return body + b"\n", self.content_type or JSON


def _as_text(value: Any) -> Any:
    """The same with U+FFFD for every byte that is no text, as Docker writes it."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_as_text(key): _as_text(one) for key, one in value.items()}
    return [_as_text(one) for one in value] if isinstance(value, list | tuple) else value


class Stream(msgspec.Struct, kw_only=True):
    """An answer of unknown length, its head sent before the first chunk.

    endless: nobody wants the rest once the client has gone, even half: it is stopped then. Others run to their end.
    whole:   half of it is worse than nothing: when the service stops first, the reply breaks off instead of ending.
    finish:  lets go of what the chunks need, exactly once, also when the client left before the first was asked for.
    """

    chunks: AsyncIterator[bytes]
    content_type: str = JSON
    status: int = 200
    headers: dict[str, str] = {}
    endless: bool = False
    whole: bool = False
    finish: Callable[[], Awaitable[None]] | None = None


class Hijack(msgspec.Struct, kw_only=True):
    """The connection leaves HTTP: after the head was sent, `take(descriptor, early)` owns the client's socket.

    early:  bytes that the client sent behind its request before it was read no further.
    park:   asked first, in the turn of the loop in which the head goes out, so before any later request is looked at;
            True when it keeps the socket for later output, which it then owns. It must not block.
    framed: output comes in frames of 8 bytes of header (stream, length) and payload, as without a terminal.
    headers: more of them for the head.
    at_once: the client takes head and output in one read as well as in two.
    """

    take: Callable[[int, bytes], Awaitable[None]]
    park: Callable[[int, bytes], bool] | None = None
    framed: bool = False
    content_type: str = RAW_STREAM
    headers: dict[str, str] = {}
    at_once: bool = False


class WebSocket(msgspec.Struct, kw_only=True):
    """The connection becomes a web socket (RFC 6455), whose messages carry a container's stream.

    hijack: is given the other end of a local connection that the engine pumps to and from the client. Where its output
            is framed, the frames are taken off: the client gets stdout and stderr in one.
    """

    hijack: Hijack


def stream_type(version: Version, *, tty: bool) -> str:
    """The content type of a container's output: named for its framing since API 1.42."""
    return RAW_STREAM if tty or version < (1, 42) else MULTIPLEXED_STREAM


def frame(stream: int, data: bytes) -> bytes:
    """One frame of a multiplexed stream: 1 is stdout, 2 stderr."""
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


Outcome = Reply | Stream | Hijack | WebSocket


def created(value: Any) -> Reply:
    """201 with a JSON body."""
    return Reply(status=201, value=value)


NO_CONTENT = Reply(status=204)


async def json_body(request: Request, *, optional: bool = False) -> Any:
    """The request's JSON object, strictly decoded, with nulls dropped as Go's decoder would.

    Raises Invalid for anything but one JSON object; an empty body counts as one when `optional`.
    """
    from proa.oci import strict_loads

    raw = await request.body.read(JSON_LIMIT)
    if not raw.strip():
        if optional:
            return {}
        raise Invalid("the request needs a JSON body, it has none", code="body-missing")
    # Checking a megabyte takes a tenth of a second: not in the loop.
    decode = functools.partial(strict_loads, raw, JSON_LIMIT, "request body")
    value = decode() if len(raw) <= SMALL_JSON else await asyncio.to_thread(decode)
    if not isinstance(value, dict):
        raise Invalid(f"the request body is a JSON {type(value).__name__}, not an object", code="json-invalid")
    return without_nulls(value)


def without_nulls(value: Any) -> Any:
    """The value with every null member of an object left out: Go reads null as not given."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


T = TypeVar("T")


def typed(value: Any, kind: type[T], what: str) -> T:
    """The JSON value as a struct; fields it does not have are ignored, as Docker does. Raises Invalid."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as e:
        raise Invalid(f"invalid {what}: {e}", code="json-invalid") from None
