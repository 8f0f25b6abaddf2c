"""One registry host: its scheme, its authorization, and requests to its API."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import IO
from urllib.parse import urljoin

from urllib3.response import BaseHTTPResponse

from proa.errors import Denied, ProaError, TimedOut, Unavailable
from proa.storage.limits import Bound
from proa.transfer.auth import Authorizer
from proa.transfer.credentials import Credentials
from proa.transfer.hosts import Host
from proa.transfer.transport import TRIES, Transport
from proa.transfer.wire import HttpReply, HttpRequest, Origin, origin_of


class Endpoint:
    """A registry as its clients see it, found and authorized at the first request. Safe to use from many threads.

    registry: the name that references have for it
    hosts:    where it may be; the first that answers as a registry is it
    offline:  ask for a token that stands for the password, as a login does
    mirror:   it stands in for the registry: told whose images are wanted, asked once, without credentials
    """

    def __init__(
        self,
        registry: str,
        hosts: Sequence[Host],
        transport: Transport,
        credentials: Credentials | None = None,
        *,
        mirror: bool = False,
        offline: bool = False,
        allowed_realms: Collection[str] = (),
    ) -> None:
        self.registry = registry
        self.transport = transport
        self.mirror = mirror
        self._hosts = list(hosts)
        self._credentials = None if mirror else credentials
        self._offline = offline
        self._allowed_realms = allowed_realms
        self._found: tuple[Host, Authorizer] | None = None
        self._lock = threading.Lock()
        for host in hosts:
            transport.trust(host.origin, host.tls)

    def may(self, capability: str) -> bool:
        """Whether it is to be used to `pull`, `resolve` or `push`."""
        return capability in self._hosts[0].capabilities

    @property
    def host(self) -> Host:
        """The host that answers; the first use asks for it. Raises Unavailable, TimedOut."""
        return self._connected()[0]

    @property
    def authorizer(self) -> Authorizer:
        """What to say to it."""
        return self._connected()[1]

    @property
    def origin(self) -> Origin:
        """The origin that answers."""
        return self.host.origin

    def _connected(self) -> tuple[Host, Authorizer]:
        with self._lock:
            if self._found is None:
                self._found = self._connect()
            return self._found

    def api(self, path: str) -> str:
        """The URL of a path below the API, which begins with a slash."""
        host = self.host
        url = f"{host.origin.url}{host.prefix}{path}"
        if not self.mirror:
            return url
        return f"{url}{'&' if '?' in path else '?'}ns={self.registry}"

    def call(
        self,
        method: str,
        path: str,
        scopes: Sequence[str],
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        bound: Bound = "reply_bytes",
    ) -> HttpReply:
        """A whole exchange, authorized, repeated on temporary failures. `path` is one of the API, or a URL."""
        transport = self.transport

        def once() -> HttpReply:
            return transport.finish(self._authorized(scopes, send), bound=bound)

        def send(authorization: dict[str, str]) -> BaseHTTPResponse:
            url = self.api(path) if path.startswith("/") else self.url(path)
            own = self._own(authorization) if origin_of(url) == self.origin else {}
            request = HttpRequest(method, url, dict(headers or {}), body)
            if method in ("GET", "HEAD"):
                return transport.get(request, local=self.origin.is_loopback, headers=own)
            return transport.send(request, local=self.origin.is_loopback, headers=own)

        # A repeated POST would leave an unused upload session behind at worst.
        return transport.retrying(once, 1 if self.mirror else TRIES)

    def open(self, path: str, scopes: Sequence[str], headers: Mapping[str, str]) -> BaseHTTPResponse:
        """GET whose body the caller streams inside `transport.reading`; no retry."""

        def send(authorization: dict[str, str]) -> BaseHTTPResponse:
            request = HttpRequest("GET", self.api(path), dict(headers))
            return self.transport.get(request, local=self.origin.is_loopback, headers=self._own(authorization))

        return self._authorized(scopes, send)

    def upload(
        self, method: str, url: str, scopes: Sequence[str], body: IO[bytes], headers: Mapping[str, str]
    ) -> HttpReply:
        """Send a stream as the body of one request; no retry, since the stream is used up."""
        own = self._own(self._authorization(scopes)) if origin_of(url) == self.origin else {}
        request = HttpRequest(method, url, dict(headers))
        reply = self.transport.send(request, local=self.origin.is_loopback, body=body, headers=own)
        if reply.status == 401:
            self.authorizer.forget(scopes)
        return self.transport.finish(reply)

    def url(self, location: str, base: str | None = None) -> str:
        """A Location header as an absolute URL, never leaving https. Raises Denied, Invalid."""
        url = urljoin(base or self.origin.url, location)
        there = origin_of(url)
        if there.scheme == "http" and self.origin.scheme == "https":
            if there.host != self.origin.host:
                raise Denied(
                    f"{self.origin.url} sends to {there.url}, out of https", code="redirect-refused", subject=there.url
                )
            # A registry behind a TLS proxy that does not know of it: same host, wrong scheme.
            url = self.origin.url + url[len(url.split("/", 3)[0]) + 2 :][len(url.split("/", 3)[2]) :]
        return url

    def _own(self, authorization: dict[str, str]) -> dict[str, str]:
        """What is said to this origin and never to another."""
        return {**self.host.headers, **authorization}

    def _authorization(self, scopes: Sequence[str]) -> dict[str, str]:
        authorizer = self.authorizer
        header = authorizer.header(scopes)
        if header is None and authorizer.needs_token:
            with authorizer.lock:
                header = self.transport.run(authorizer.flow(scopes), local=self.origin.is_loopback)
        return {"Authorization": header} if header else {}

    def _authorized(
        self, scopes: Sequence[str], send: Callable[[dict[str, str]], BaseHTTPResponse]
    ) -> BaseHTTPResponse:
        """Send; on 401 learn how this registry wants to be asked and send once more."""
        before = self._authorization(scopes)
        reply = send(before)
        self.transport.warn(reply.headers.get("Warning", ""))
        if reply.status != 401:
            return reply
        authorizer = self.authorizer
        challenge = reply.headers.get("WWW-Authenticate", "")
        if not challenge:
            return reply
        self.transport.finish(reply)
        with authorizer.lock:
            if authorizer.header(scopes) == before.get("Authorization"):
                authorizer.forget(scopes)
            authorizer.learn(challenge)
        after = self._authorization(scopes)
        if not after or (after == before and not after["Authorization"].startswith("Bearer ")):
            raise authorizer.refusal("incorrect username or password" if before else "authentication required")
        return send(after)

    def _connect(self) -> tuple[Host, Authorizer]:
        """Find the scheme by asking for the API's root: 200 and 401 both mean a registry."""
        failure: ProaError | None = None
        for host in self._hosts:
            last = host == self._hosts[-1]
            try:
                reply = self._ask(host, patient=last and not self.mirror)
            except (Unavailable, TimedOut) as e:
                # Only a missing https server leads to plain http; a certificate that is not trusted does not (V07).
                if e.code == "tls" and not last and not _speaks_plain(e):
                    raise
                # A certificate that is not trusted says more than that the other scheme is not spoken.
                failure = e if failure is None or e.code == "tls" else failure
                continue
            if host.origin.scheme == "http" and reply.status == 400 and not last:
                continue  # a TLS server answers plain http with 400
            authorizer = Authorizer(host.origin, self._credentials, self._allowed_realms, offline=self._offline)
            if reply.status == 401 and (challenge := reply.headers.get("www-authenticate")):
                authorizer.learn(challenge)
            return host, authorizer
        if failure is None:
            failure = Unavailable(f"{self.registry} does not answer as a registry", code="registry-unreachable")
        raise failure

    def _ask(self, host: Host, *, patient: bool) -> HttpReply:
        """GET the API's root; `patient` tries again on temporary failures."""
        request = HttpRequest("GET", f"{host.origin.url}{host.prefix}/")
        local = host.origin.is_loopback
        if patient:
            return self.transport.exchange(request, local=local, headers=host.headers, truncate=True)
        return self.transport.finish(self.transport.get(request, local=local, headers=host.headers), truncate=True)


def _speaks_plain(error: ProaError) -> bool:
    return any(word in error.message.lower() for word in ("wrong version number", "record layer failure", "eof"))
