"""Which proxy to reach an origin by, from HTTPS_PROXY, HTTP_PROXY and NO_PROXY as other container tools read them.

    NO_PROXY=registry.lan,.example.org,10.0.0.0/8,192.168.1.7,cache.lan:5000,*

A name covers itself and everything below it, `.name` only what is below; an entry with a port covers that port.
This machine is never reached by a proxy. Source: the description in Go's golang.org/x/net/http/httpproxy.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from proa.errors import Invalid
from proa.transfer.wire import Origin


class Proxy(NamedTuple):
    """A proxy's URL without its user, and what to say in Proxy-Authorization, if anything."""

    url: str
    user: str | None = None


class Proxies(msgspec.Struct, frozen=True, kw_only=True):
    """Proxies for https and plain http origins, empty for none; `no` is a NO_PROXY list."""

    https: str = ""
    http: str = ""
    no: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Proxies:
        """Lower-case names go before upper-case ones. HTTP_PROXY in a CGI program comes from its caller: ignored."""

        def value(name: str) -> str:
            return environment.get(name) or environment.get(name.upper()) or ""

        http = value("http_proxy") if "REQUEST_METHOD" not in environment else environment.get("http_proxy", "")
        return cls(https=value("https_proxy"), http=http, no=value("no_proxy"))

    def over(self, other: Proxies) -> Proxies:
        """Each setting of these, or where it is empty, of `other`."""
        return Proxies(https=self.https or other.https, http=self.http or other.http, no=self.no or other.no)

    def redacted(self) -> Proxies:
        """The same without passwords, to be shown."""
        return Proxies(https=_shown(self.https), http=_shown(self.http), no=self.no)

    def proxy_for(self, origin: Origin) -> Proxy | None:
        """The proxy for `origin`. Raises Invalid for a proxy that is none of http or https."""
        text = self.https if origin.scheme == "https" else self.http
        if not text or origin.is_loopback or self._excepts(origin):
            return None
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in ("http", "https"):
            raise Invalid(f"invalid proxy {_shown(text)!r}: want http(s)://host:port", code="proxy-invalid")
        user = None
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        where = f"[{host}]" if ":" in host else host
        return Proxy(f"{parts.scheme}://{where}:{port or (443 if parts.scheme == 'https' else 80)}", user)

    def _excepts(self, origin: Origin) -> bool:
        return any(_covers(entry.strip().lower(), origin) for entry in self.no.split(",") if entry.strip())


def _covers(entry: str, origin: Origin) -> bool:
    if entry == "*":
        return True
    address = _address(origin.host)
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    host, port = _split_port(entry)
    if port and port != str(origin.port):
        return False
    if (named := _address(host)) is not None:
        return named == address
    if host.startswith((".", "*.")):
        return origin.host.endswith(host.removeprefix("*"))
    return origin.host == host or origin.host.endswith(f".{host}")


def _split_port(entry: str) -> tuple[str, str]:
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]")
        return host, port.removeprefix(":")
    host, colon, port = entry.rpartition(":")
    return (host, port) if colon and ":" not in host and port.isdecimal() else (entry, "")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _shown(url: str) -> str:
    if "@" not in url:
        return url
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
    except ValueError:
        return "xxxxx"
    return urlunsplit(parts._replace(netloc="xxxxx:xxxxx@" + parts.netloc.rpartition("@")[2]))
