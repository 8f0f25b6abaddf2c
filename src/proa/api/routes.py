"""Routes as data, and finding one: a path is decoded once, checked, then matched."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import msgspec

from proa._version import __version__
from proa.api.messages import Outcome, Request, Version
from proa.errors import Invalid, NotFound

if TYPE_CHECKING:
    from proa.api.service import Service

API_VERSION: Version = (1, 51)
MIN_API_VERSION: Version = (1, 24)

#: On every response, errors of the HTTP layer included. Clients negotiate by the first two.
HEADERS = {
    "Api-Version": f"{API_VERSION[0]}.{API_VERSION[1]}",
    "Ostype": "linux",
    "Docker-Experimental": "false",
    "Builder-Version": "1",
    "Server": f"proa/{__version__} (linux)",
}

Operation = Callable[["Service", Request], Awaitable[Outcome]]

_PREFIX = re.compile(r"/v([0-9]{1,4})(?:\.([0-9]{1,4}))?(/.*)", re.ASCII | re.DOTALL)
_VARIABLE = re.compile(r"\{([a-z]+)(:path)?\}")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


class Route(msgspec.Struct, frozen=True):
    """One operation of the API: `{name}` in the template is one segment, `{name:path}` any number of them."""

    method: str
    template: str
    operation: Operation
    since: Version = MIN_API_VERSION


class Router:
    """Finds the route of a method and path; the first of the table that matches wins."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._by_head: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in self.routes:
            head = route.template.split("/", 2)[1]
            self._by_head.setdefault((route.method, head), []).append((_compile(route.template), route))

    def find(self, method: str, path: str, version: Version) -> tuple[Route, dict[str, str]]:
        """The route and its variables. Raises NotFound, as Docker does for a wrong method too."""
        for pattern, route in self._by_head.get((method, path.split("/", 2)[1]), ()):
            match = pattern.fullmatch(path)
            if match is not None and version >= route.since:
                return route, match.groupdict()
        raise NotFound("page not found", code="page-not-found")


def _compile(template: str) -> re.Pattern[str]:
    parts = []
    at = 0
    for match in _VARIABLE.finditer(template):
        parts.append(re.escape(template[at : match.start()]))
        parts.append(f"(?P<{match[1]}>{'.+' if match[2] else '[^/]+'})")
        at = match.end()
    parts.append(re.escape(template[at:]))
    return re.compile("".join(parts), re.DOTALL)


def decode_path(raw: str) -> str:
    """Percent-decode a request path once. Raises Invalid for what no honest client sends: dots, NUL, broken UTF-8."""
    if not raw.startswith("/"):
        raise Invalid("the request path does not start with a slash", code="path-invalid")
    if _PERCENT.search(raw):
        raise Invalid("the request path has a broken percent escape", code="path-invalid")
    try:
        path = unquote_to_bytes(raw).decode("utf-8") if "%" in raw else raw
    except UnicodeDecodeError:
        raise Invalid("the request path is not UTF-8", code="path-invalid") from None
    if _CONTROL.search(path) or any("\ud800" <= c <= "\udfff" for c in path):
        raise Invalid("the request path has control characters", code="path-invalid")
    if any(segment in (".", "..") for segment in path.split("/")):
        raise Invalid("the request path has dot segments", code="path-invalid")
    return path


def split_version(path: str) -> tuple[Version, str]:
    """`/v1.44/x` -> (1, 44), `/x`; a path without a version means the newest. Raises Invalid in Docker's words."""
    match = _PREFIX.fullmatch(path)
    if match is None:
        return API_VERSION, path
    version = (int(match[1]), int(match[2] or 0))
    text = match[1] if match[2] is None else f"{match[1]}.{match[2]}"
    if version > API_VERSION:
        raise Invalid(
            f"client version {text} is too new. Maximum supported API version is {dotted(API_VERSION)}",
            code="version-too-new",
        )
    if version < MIN_API_VERSION:
        raise Invalid(
            f"client version {text} is too old. Minimum supported API version is {dotted(MIN_API_VERSION)}, "
            "please upgrade your client to a newer version",
            code="version-too-old",
        )
    return version, match[3]


def dotted(version: Version) -> str:
    """`1.51`."""
    return f"{version[0]}.{version[1]}"
