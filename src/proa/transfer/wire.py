"""Requests and replies as plain values, so that protocol flows can be generators that do no I/O.

A flow is a generator that yields `HttpRequest`s, is sent `HttpReply`s, and returns its result:

    def flow() -> Generator[HttpRequest, HttpReply, Token]: ...

`Transport.run` drives one over a network; tests drive it with a list of replies.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from proa.errors import Invalid

T = TypeVar("T")

_PORTS = {"http": 80, "https": 443}
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|::1")


class Origin(NamedTuple):
    """Scheme, host and port: what a credential or a token is bound to."""

    scheme: str
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """True for this machine by name or address."""
        return _LOOPBACK.fullmatch(self.host) is not None

    @property
    def url(self) -> str:
        """The origin as the front of a URL, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


class HttpRequest(NamedTuple):
    """One request; `body` is for small ones, streams are the transport's affair."""

    method: str
    url: str
    headers: Mapping[str, str] = {}
    body: bytes = b""


class HttpReply(NamedTuple):
    """Status, headers (keys in lower case) and the whole, size-limited body of one reply."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


Flow = Generator[HttpRequest, HttpReply, T]


def origin_of(url: str) -> Origin:
    """The origin of an absolute http or https URL. Raises Invalid for any other, and for one with a user in it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Invalid(f"invalid URL {url[:200]!r}", code="url-invalid") from None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or re.search(r"[\x00-\x20\x7f\\]", url):
        raise Invalid(f"invalid URL {url[:200]!r}: want http(s)://host/…", code="url-invalid")
    return Origin(parts.scheme, parts.hostname.lower().rstrip("."), port or _PORTS[parts.scheme])
