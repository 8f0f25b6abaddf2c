"""Search a registry: Docker Hub's and other indexes by their v1 interface, else the names in a registry's catalog."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from proa.errors import Denied, NotFound, ProaError, Unsupported
from proa.oci import strict_loads
from proa.transfer.credentials import Credentials
from proa.transfer.endpoint import Endpoint
from proa.transfer.failures import printable, registry_failure
from proa.transfer.registries import Registries
from proa.transfer.transport import Transport
from proa.transfer.wire import HttpReply

PAGE = 1000
HUB = "docker.io"
_HUB_INDEX = "index.docker.io"
_REPOSITORY = re.compile(r"[a-z0-9][a-z0-9._/-]{0,254}")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One repository; all but the name only where the registry says it."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


def search(
    registry: str,
    term: str,
    *,
    limit: int = 25,
    credentials: Credentials | None = None,
    registries: Registries | None = None,
    stopped: threading.Event | None = None,
) -> list[Found]:
    """Repositories of `registry` that match `term`, best first as it says, at most `limit`.

    Raises Unauthorized, Denied, Unavailable, TimedOut, Unsupported when it offers no way to search.
    """
    settings = registries or Registries()
    transport = Transport(registries=settings, stopped=stopped)
    host = _HUB_INDEX if registry == HUB else registry
    try:
        endpoint = Endpoint(
            registry, settings.servers(host), transport, credentials, allowed_realms=settings.token_servers
        )
        return _index(endpoint, term, limit, asked=registry == HUB) or _catalog(endpoint, term, limit)
    finally:
        transport.close()


def _index(endpoint: Endpoint, term: str, limit: int, *, asked: bool) -> list[Found]:
    """`GET /v1/search`; nothing where there is none, unless it is `asked` for and nothing else will do."""
    url = f"{endpoint.origin.url}/v1/search?{urlencode({'q': term, 'n': limit})}"
    try:
        reply = endpoint.call("GET", url, (), bound="listing_bytes")
    except ProaError:
        if asked:
            raise
        return []
    value = _json(reply) if reply.status == 200 else None
    results = value.get("results") if isinstance(value, dict) else None
    if isinstance(results, list):
        return [found for found in map(_found, results) if found is not None][:limit]
    if asked:
        raise registry_failure(reply, f"cannot search {endpoint.registry}", endpoint.registry)
    return []


def _found(item: Any) -> Found | None:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        return None
    stars = item.get("star_count")
    return Found(
        name=printable(item["name"]),
        description=printable(str(item.get("description") or "")),
        stars=stars if isinstance(stars, int) else 0,
        official=item.get("is_official") is True,
        automated=item.get("is_automated") is True,
    )


def _catalog(endpoint: Endpoint, term: str, limit: int) -> list[Found]:
    """Names of the registry's catalog that contain `term`."""
    out: list[Found] = []
    last, seen = "", 0
    while len(out) < limit:
        page = f"?n={PAGE}" + (f"&last={quote(last, safe='')}" if last else "")
        reply = endpoint.call("GET", f"/_catalog{page}", ("registry:catalog:*",), bound="listing_bytes")
        if reply.status != 200:
            raise _no_catalog(reply, endpoint.registry)
        value = _json(reply)
        names = value.get("repositories") if isinstance(value, dict) else None
        names = [name for name in names or () if isinstance(name, str) and _REPOSITORY.fullmatch(name)]
        out += [Found(name=f"{endpoint.registry}/{name}") for name in names if term in name]
        seen += len(names)
        if not names or 'rel="next"' not in reply.headers.get("link", "") or names[-1] == last:
            break
        if seen > (limits := endpoint.transport.limits).listing_names:
            limits.exceeded("listing_names", f"the catalog of {endpoint.registry} has {seen} names and more")
        last = names[-1]
    return out[:limit]


def _no_catalog(reply: HttpReply, registry: str) -> ProaError:
    failure = registry_failure(reply, f"cannot search {registry}", registry)
    if isinstance(failure, NotFound | Denied):
        return Unsupported(f"{registry} offers no search and no catalog", code="search-unsupported", subject=registry)
    return failure


def _json(reply: HttpReply) -> Any:
    try:
        return strict_loads(reply.body, len(reply.body))
    except ProaError:
        return None


def passes(found: Found, filters: dict[str, Sequence[str]]) -> bool:
    """Docker's filters: is-official, is-automated (true or false), stars (at least so many). Raises Unsupported."""
    for key, values in filters.items():
        for value in values:
            if key in ("is-official", "is-automated"):
                is_it = found.official if key == "is-official" else found.automated
                if is_it is not (value in ("true", "1")):
                    return False
            elif key == "stars" and value.isascii() and value.isdecimal():
                if found.stars < int(value):
                    return False
            else:
                raise Unsupported(f"invalid filter '{key}={value}'", code="filter-invalid")
    return True
