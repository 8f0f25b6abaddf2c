"""One registry host: its scheme, its authorization, and requests below /v2/."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import IO
from urllib.parse import urljoin

from urllib3.response import BaseHTTPResponse

from proa.errors import Denied, Invalid, ProaError, TimedOut, Unavailable
from proa.transfer.auth import Authorizer
from proa.transfer.credentials import Credentials
from proa.transfer.transport import REPLY_LIMIT, Transport
from proa.transfer.wire import HttpReply, HttpRequest, Origin, origin_of

_API_HOSTS = {"docker.io": "registry-1.docker.io"}


class Endpoint:
    """A registry as its clients see it, found and authorized at the first request. Safe to use from many threads.

    registry:   host with optional port, or docker.io
    plain_http: True for http only, False for https only, None to decide: http first on loopback, else https
    insecure:   allow plain http where https does not answer (asked for by the user for this host)
    """

    def __init__(
        self,
        registry: str,
        transport: Transport,
        credentials: Credentials | None = None,
        *,
        plain_http: bool | None = None,
        insecure: bool = False,
        allowed_realms: Collection[str] = (),
    ) -> None:
        self.registry = registry
        self.transport = transport
        host = _API_HOSTS.get(registry, registry)
        self._candidates = _candidates(host, plain_http, insecure)
        self._credentials = credentials
        self._allowed_realms = allowed_realms
        self._authorizer: Authorizer | None = None
        self._lock = threading.Lock()

    @property
    def authorizer(self) -> Authorizer:
        """The authorizer for the origin that answers; the first use asks /v2/. Raises Unavailable, TimedOut."""
        with self._lock:
            if self._authorizer is None:
                self._authorizer = self._connect()
            return self._authorizer

    @property
    def origin(self) -> Origin:
        """The origin that answers."""
        return self.authorizer.registry

    def call(
        self,
        method: str,
        path: str,
        scopes: Sequence[str],
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        limit: int = REPLY_LIMIT,
    ) -> HttpReply:
        """A whole exchange, authorized, repeated on temporary failures. `path` may be a URL of this registry."""
        transport = self.transport

        def once() -> HttpReply:
            return transport.finish(self._authorized(scopes, send), limit=limit)

        def send(authorization: dict[str, str]) -> BaseHTTPResponse:
            url = self.url(path)
            own = authorization if origin_of(url) == self.origin else {}
            request = HttpRequest(method, url, dict(headers or {}), body)
            if method in ("GET", "HEAD"):
                return transport.get(request, local=self.origin.is_loopback, headers=own)
            return transport.send(request, local=self.origin.is_loopback, headers=own)

        # A repeated POST would leave an unused upload session behind at worst.
        return transport.retrying(once)

    def open(self, path: str, scopes: Sequence[str], headers: Mapping[str, str]) -> BaseHTTPResponse:
        """GET whose body the caller streams inside `transport.reading`; no retry."""

        def send(authorization: dict[str, str]) -> BaseHTTPResponse:
            request = HttpRequest("GET", self.url(path), dict(headers))
            return self.transport.get(request, local=self.origin.is_loopback, headers=authorization)

        return self._authorized(scopes, send)

    def upload(
        self, method: str, url: str, scopes: Sequence[str], body: IO[bytes], headers: Mapping[str, str]
    ) -> HttpReply:
        """Send a stream as the body of one request; no retry, since the stream is used up."""
        authorization = self._authorization(scopes) if origin_of(url) == self.origin else {}
        request = HttpRequest(method, url, dict(headers))
        reply = self.transport.send(request, local=self.origin.is_loopback, body=body, headers=authorization)
        if reply.status == 401:
            self.authorizer.forget(scopes)
        return self.transport.finish(reply)

    def url(self, path: str, base: str | None = None) -> str:
        """`path` or a Location header as an absolute URL, never leaving https. Raises Denied, Invalid."""
        url = urljoin(base or self.origin.url, path)
        there = origin_of(url)
        if there.scheme == "http" and self.origin.scheme == "https":
            if there.host != self.origin.host:
                raise Denied(
                    f"{self.origin.url} sends to {there.url}, out of https", code="redirect-refused", subject=there.url
                )
            # A registry behind a TLS proxy that does not know of it: same host, wrong scheme.
            url = self.origin.url + url[len(url.split("/", 3)[0]) + 2 :][len(url.split("/", 3)[2]) :]
        return url

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

    def _connect(self) -> Authorizer:
        """Find the scheme by asking /v2/: 200 and 401 both mean a registry."""
        failure: ProaError | None = None
        for origin in self._candidates:
            last = origin == self._candidates[-1]
            try:
                reply = self._ask(origin, patient=last)
            except (Unavailable, TimedOut) as e:
                # Only a missing https server leads to plain http; a certificate that is not trusted does not (V07).
                if e.code == "tls" and not last and not _speaks_plain(e):
                    raise
                # A certificate that is not trusted says more than that the other scheme is not spoken.
                failure = e if failure is None or e.code == "tls" else failure
                continue
            if origin.scheme == "http" and reply.status == 400 and not last:
                continue  # a TLS server answers plain http with 400
            authorizer = Authorizer(origin, self._credentials, self._allowed_realms)
            if reply.status == 401 and (challenge := reply.headers.get("www-authenticate")):
                authorizer.learn(challenge)
            return authorizer
        if failure is None:
            failure = Unavailable(f"{self.registry} does not answer as a registry", code="registry-unreachable")
        raise failure

    def _ask(self, origin: Origin, *, patient: bool) -> HttpReply:
        """GET /v2/; `patient` tries again on temporary failures."""
        request = HttpRequest("GET", f"{origin.url}/v2/")
        if patient:
            return self.transport.exchange(request, local=origin.is_loopback, truncate=True)
        return self.transport.finish(self.transport.get(request, local=origin.is_loopback), truncate=True)


def _speaks_plain(error: ProaError) -> bool:
    return any(word in error.message.lower() for word in ("wrong version number", "record layer failure", "eof"))


def _candidates(host: str, plain_http: bool | None, insecure: bool) -> list[Origin]:
    try:
        secure, plain = origin_of(f"https://{host}/"), origin_of(f"http://{host}/")
    except Invalid:
        raise Invalid(f"invalid registry host {host[:200]!r}", code="reference-invalid") from None
    if plain_http is not None:
        return [plain if plain_http else secure]
    if secure.is_loopback:
        return [plain, secure]
    return [secure, plain] if insecure else [secure]
