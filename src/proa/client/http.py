"""HTTP/1.1 as pure functions over bytes: request heads out, replies in; no sockets, no heavy imports.

    request_head("POST", "/containers/x/start")  ->  bytes to send
    reader = ReplyReader(); reader.feed(bytes)   ->  reader.head, then reader.take() pieces until reader.done

RFC 9112, as much as a client of the engine needs: content-length, chunked and close-delimited bodies, 1xx, and 101
after which `rest` holds the first raw bytes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from proa.errors import Corrupt

MAX_HEAD = 64 << 10
MAX_CHUNK_LINE = 1 << 10

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:@")
_HEX = frozenset(b"0123456789abcdefABCDEF")


def quote(text: str, keep: frozenset[int] = _SAFE) -> str:
    """Percent-encode for a path (`/`, `:` and `@` stay, as image references need them)."""
    raw = text.encode("utf-8", "surrogateescape")
    if keep.issuperset(raw):
        return text
    return "".join([chr(b) if b in keep else f"%{b:02X}" for b in raw])


def query(**values: str | int | bool | None) -> str:
    """A query string with its `?`, without the parameters that are None, False or empty; keys are used as spelled."""
    pairs = []
    for key, value in values.items():
        if value is None or value is False or value == "":
            continue
        pairs.append(f"{key}={1 if value is True else quote(str(value))}")
    return "?" + "&".join(pairs) if pairs else ""


def request_head(
    method: str,
    target: str,
    *,
    length: int | None = 0,
    headers: Iterable[tuple[str, str]] = (),
    upgrade: bool = False,
    content_type: str = "application/json",
    host: str = "proa",
) -> bytes:
    """The head of a request; length None announces a chunked body, 0 with GET or HEAD announces none.

    Raises ValueError when the target or a header would break out of its line.
    """
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    if upgrade:
        lines += ["Connection: Upgrade", "Upgrade: tcp"]
    if length is None:
        lines += ["Transfer-Encoding: chunked", f"Content-Type: {content_type}"]
    elif length:
        lines += [f"Content-Length: {length}", f"Content-Type: {content_type}"]
    elif method not in ("GET", "HEAD"):
        lines.append("Content-Length: 0")
    lines += [f"{k}: {v}" for k, v in headers]
    for line in lines:
        if "\r" in line or "\n" in line or "\0" in line:
            raise ValueError(f"control character in request line {line!r}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Head:
    """Status and headers of a reply; header names are lower-case."""

    __slots__ = ("headers", "reason", "status")

    def __init__(self, status: int, reason: str, headers: dict[str, str]) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers


class ReplyReader:
    """Turns the bytes of one reply into its head and its body.

    method: of the request, as a reply to HEAD has no body.
    After `done`, `rest` holds bytes that belong to whatever follows on the connection.
    """

    __slots__ = ("_body", "_buffer", "_chunked", "_left", "_method", "done", "head", "rest")

    def __init__(self, method: str = "GET") -> None:
        self._method = method
        self._buffer = b""
        self._body: list[bytes] = []
        self._left = 0  # bytes left in the body or chunk; -1: until the connection closes
        self._chunked = False
        self.head: Head | None = None
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> None:
        """Take what the socket gave; empty means it was closed.

        Raises Corrupt when this is not HTTP, or ends too early.
        """
        if not data:
            if self.head is None or not (self.done or self._left == -1):
                raise _corrupt("the engine closed the connection in the middle of a reply", "reply-cut-short")
            self.done = True
            return
        if self.done:
            self.rest += data
            return
        self._buffer += data
        if self.head is None and not self._parse_head():
            return
        if self._chunked:
            self._parse_chunks()
        elif not self.done:
            self._parse_plain()

    def take(self) -> bytes:
        """The body bytes decoded since the last call."""
        if not self._body:
            return b""
        data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        return data

    @property
    def upgraded(self) -> bool:
        """Whether the connection now carries a raw stream."""
        return self.head is not None and self.head.status == 101

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        return (
            self.done
            and self._left != -1
            and not self.upgraded
            and self.head is not None
            and self.head.headers.get("connection", "").lower() != "close"
        )

    def _parse_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD:
                raise _corrupt("the engine's reply has no end of headers", "reply-head-too-long")
            return False
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        self._buffer = self._buffer[end + 4 :]
        version, _, line = lines[0].partition(" ")
        code, _, reason = line.partition(" ")
        if not version.startswith("HTTP/1.") or len(code) != 3 or not (code.isascii() and code.isdigit()):
            raise _corrupt(f"not an HTTP reply: {lines[0][:80]!r}")
        status = int(code)
        if 100 <= status < 200 and status != 101:
            return bool(self._buffer) and self._parse_head()
        headers: dict[str, str] = {}
        for text in lines[1:]:
            name, _, value = text.partition(":")
            headers[name.strip().lower()] = value.strip()
        self.head = Head(status, reason, headers)
        length = headers.get("content-length")
        if status in (101, 204, 304) or self._method == "HEAD":
            self._finish(b"", self._buffer)
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            self._chunked = True
        elif length is not None:
            if not (length.isascii() and length.isdigit()):
                raise _corrupt(f"bad Content-Length {length!r}")
            self._left = int(length)
            if not self._left:
                self._finish(b"", self._buffer)
        else:
            self._left = -1
        return True

    def _parse_plain(self) -> None:
        data, self._buffer = self._buffer, b""
        if self._left == -1:
            if data:
                self._body.append(data)
        elif len(data) >= self._left:
            self._finish(data[: self._left], data[self._left :])
        elif data:
            self._body.append(data)
            self._left -= len(data)

    def _parse_chunks(self) -> None:
        data, position = self._buffer, 0
        while True:
            if self._left > 0:
                piece = data[position : position + self._left]
                if not piece:
                    break
                self._body.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._left = -2  # the line end that follows a chunk
            if self._left == -2:
                if len(data) - position < 2:
                    break
                position += 2
                self._left = 0
            end = data.find(b"\r\n", position)
            if end < 0:
                if len(data) - position > MAX_CHUNK_LINE:
                    raise _corrupt("endless chunk size in the engine's reply")
                break
            size = data[position:end].partition(b";")[0].strip()
            if not size or not _HEX.issuperset(size):
                raise _corrupt(f"bad chunk size {size[:20]!r} in the engine's reply")
            length = int(size, 16)
            if not length:
                stop = data.find(b"\r\n\r\n", end)
                if stop < 0:
                    break  # trailers are still coming
                self._finish(b"", data[stop + 4 :])
                return
            position = end + 2
            self._left = length
        self._buffer = data[position:]

    def _finish(self, body: bytes, rest: bytes) -> None:
        if body:
            self._body.append(body)
        self._buffer = b""
        self._left = 0
        self.rest = rest
        self.done = True


def _corrupt(message: str, code: str = "reply-not-http") -> Corrupt:
    from proa.errors import Corrupt

    return Corrupt(message, code=code)
