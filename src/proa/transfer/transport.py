"""HTTP over urllib3 pools: time-outs, retries with back-off, guarded redirects, verified TLS.

One `Transport` serves one transfer. Connections are pooled by origin; every call may come from any thread. Secrets
never follow a redirect to another origin, and no redirect or token server leads from a public registry to this machine.
"""

from __future__ import annotations

import email.utils
import ipaddress
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, TypeVar
from urllib.parse import urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, SSLError
from urllib3.response import BaseHTTPResponse, HTTPResponse

from proa._version import __version__
from proa.errors import Cancelled, Denied, TimedOut, Unavailable
from proa.storage.limits import Bound
from proa.transfer.proxies import Proxies
from proa.transfer.registries import CERTS_DIRS, Registries
from proa.transfer.tls import Tls
from proa.transfer.wire import Flow, HttpReply, HttpRequest, Origin, origin_of

CONNECT_TIMEOUT_S = 15.0
IDLE_TIMEOUT_S = 60.0
MAX_REDIRECTS = 8
TRIES = 5
BACKOFF_S = 0.5
BACKOFF_CAP_S = 30.0
RETRY_AFTER_CAP_S = 120.0
# Worth asking again: too many requests, and gateways between us and the registry.
RETRIED = frozenset({429, 500, 502, 503, 504})
WARNING_LIMIT = 4096
MAX_WARNINGS = 20
CHUNK = 256 << 10

_ALWAYS = {"User-Agent": f"proa/{__version__}", "Accept-Encoding": "identity"}

# Only this form is for users: code 299 and no agent.
_WARNING = re.compile(r'299 - "((?:[^"\\]|\\.)*)"')

T = TypeVar("T")


class _NotPublic(HTTPError):
    """A name led to an address on this machine or link."""


def _check_peer(sock: socket.socket) -> socket.socket:
    # Checked on the connected socket: a name that is looked up twice may answer twice.
    address = ipaddress.ip_address(sock.getpeername()[0].partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
        sock.close()
        raise _NotPublic(f"it is at {address}, an address of this machine or link")
    return sock


class _PublicConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _check_peer(super()._new_conn())


class _PublicTLSConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _check_peer(super()._new_conn())


class _TLSPool(HTTPSConnectionPool):
    def _validate_conn(self, conn: Any) -> None:
        # Without urllib3's warning at each request: that a certificate is not checked was asked for.
        if conn.is_closed:
            conn.connect()


class _PublicPool(HTTPConnectionPool):
    ConnectionCls = _PublicConnection


class _PublicTLSPool(_TLSPool):
    ConnectionCls = _PublicTLSConnection


_ANYWHERE = {"http": HTTPConnectionPool, "https": _TLSPool}
_PUBLIC = {"http": _PublicPool, "https": _PublicTLSPool}


class Transport:
    """Send requests for one transfer.

    registries: proxies, and certificates by host
    stopped:    set it, then call `abort`, to make every call of every thread raise Cancelled soon; not the event of
                who asked for the transfer, since one part that failed stops the others by it
    """

    def __init__(
        self,
        *,
        registries: Registries | None = None,
        stopped: threading.Event | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self.stopped = stopped or threading.Event()
        self._registries = registries or Registries()
        self.limits = self._registries.limits
        self._proxies = self._registries.proxies.over(Proxies.from_environment())
        self._trusted: dict[Origin, Tls] = {}
        self.warnings: dict[str, None] = {}
        self._timeout = urllib3.Timeout(connect=connect_timeout_s, read=idle_timeout_s)
        self._backoff_s = backoff_s
        self._pools: dict[tuple[Origin, bool], urllib3.PoolManager] = {}
        self._live: set[BaseHTTPResponse] = set()
        self._lock = threading.Lock()

    def trust(self, origin: Origin, tls: Tls) -> None:
        """What is configured for an origin, before anything is said to it."""
        with self._lock:
            self._trusted[origin] = tls

    def send(
        self,
        request: HttpRequest,
        *,
        local: bool,
        body: IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> BaseHTTPResponse:
        """One exchange: no retry, no redirect. The caller reads the reply inside `reading`.

        local: whether addresses of this machine are allowed (the registry itself is on it).
        Raises Unavailable, TimedOut, Denied, Cancelled.
        """
        self._check()
        origin = origin_of(request.url)
        sent = {**_ALWAYS, **request.headers, **(headers or {})}
        try:
            return self._pool(origin, local).urlopen(
                request.method,
                request.url,
                body=body if body is not None else (request.body or None),
                headers=sent,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=self._timeout,
            )
        except (HTTPError, OSError) as e:
            self._check()
            raise _translate(e, origin) from e

    def get(self, request: HttpRequest, *, local: bool, headers: Mapping[str, str] | None = None) -> BaseHTTPResponse:
        """GET or HEAD, following redirects; `headers` stay behind when the origin changes. Raises like `send`."""
        headers = dict(headers or {})
        start = origin_of(request.url)
        for _ in range(MAX_REDIRECTS):
            reply = self.send(request, local=local, headers=headers)
            if reply.status not in (301, 302, 303, 307, 308) or not reply.headers.get("Location"):
                return reply
            target = urljoin(request.url, reply.headers["Location"])
            reply.drain_conn()
            reply.release_conn()
            there = origin_of(target)
            if there != origin_of(request.url):
                headers = {}
                request = request._replace(
                    headers={k: v for k, v in request.headers.items() if k.lower() not in ("authorization", "cookie")}
                )
            if start.scheme == "https" and there.scheme != "https":
                raise Denied(
                    f"{start.url} redirects to {there.url}, out of https", code="redirect-refused", subject=start.url
                )
            request = request._replace(url=target)
        raise Unavailable(f"{start.url} redirects more than {MAX_REDIRECTS} times", code="redirect-loop")

    @contextmanager
    def reading(self, reply: BaseHTTPResponse) -> Iterator[BaseHTTPResponse]:
        """Read a reply's body: its connection goes back to the pool when all of it was read, else it is closed."""
        with self._lock:
            self._live.add(reply)
        try:
            yield reply
        except (HTTPError, OSError, ValueError) as e:
            self._check()
            raise _translate(e, None) from e
        finally:
            with self._lock:
                self._live.discard(reply)
            if reply.length_remaining == 0:
                reply.release_conn()
            else:
                reply.close()

    def read(self, reply: BaseHTTPResponse, bound: Bound = "reply_bytes") -> bytes:
        """The whole body of a reply. Raises Invalid when it is longer than a limit, Corrupt when it is cut off."""
        limit = self.limits.size_of(bound)
        with self.reading(reply):
            out = bytearray()
            while chunk := reply.read(min(CHUNK, limit + 1 - len(out))):
                out += chunk
                if len(out) > limit:
                    self.limits.exceeded(bound, f"an answer of the registry has more than {limit} bytes")
            return bytes(out)

    def exchange(
        self,
        request: HttpRequest,
        *,
        local: bool,
        headers: Mapping[str, str] | None = None,
        bound: Bound = "reply_bytes",
        truncate: bool = False,
    ) -> HttpReply:
        """One whole exchange with retries, for requests that may be repeated. `truncate` forgives a long body."""

        def once() -> HttpReply:
            safe = request.method in ("GET", "HEAD")
            send = self.get if safe else self.send
            return self.finish(send(request, local=local, headers=headers), bound=bound, truncate=truncate)

        return self.retrying(once)

    def finish(self, reply: BaseHTTPResponse, *, bound: Bound = "reply_bytes", truncate: bool = False) -> HttpReply:
        """Read a reply to its end into a value; error bodies are cut at `reply-bytes`."""
        headers = {key.lower(): value for key, value in reply.headers.items()}
        if truncate or reply.status >= 400:
            with self.reading(reply):
                return HttpReply(reply.status, headers, reply.read(self.limits.reply_bytes))
        return HttpReply(reply.status, headers, self.read(reply, bound))

    def retrying(self, once: Any, tries: int = TRIES) -> HttpReply:
        """Call `once` until its reply is no temporary failure, up to `tries` times; Retry-After is honoured."""
        for left in range(tries - 1, -1, -1):
            wait_s = None
            try:
                reply: HttpReply = once()
            except (Unavailable, TimedOut) as e:
                if not left or not e.fields.get("temporary"):
                    raise
            else:
                if reply.status not in RETRIED or not left:
                    return reply
                wait_s = retry_after_s(reply.headers.get("retry-after", ""))
            self.pause(tries - 1 - left, wait_s)
        raise AssertionError("unreachable")

    def run(self, flow: Flow[T], *, local: bool) -> T:
        """Drive a flow to its result."""
        try:
            request = next(flow)
            while True:
                request = flow.send(self.exchange(request, local=local, bound="token_bytes"))
        except StopIteration as done:
            result: T = done.value
            return result

    def pause(self, tried: int, wait_s: float | None = None) -> None:
        """Wait before try number `tried` + 2: what the server asked for, else exponential with full jitter."""
        if wait_s is None:
            wait_s = random.uniform(0.5, 1.0) * min(self._backoff_s * 2**tried, BACKOFF_CAP_S)  # noqa: S311 (jitter)
        if self.stopped.wait(wait_s):
            raise Cancelled("the transfer was cancelled", code="cancelled")

    def warn(self, header: str) -> None:
        """Note what a registry wants its users to know (distribution-spec, "Warnings"), once each."""
        for text in _WARNING.findall(header[:WARNING_LIMIT]):
            with self._lock:
                if len(self.warnings) < MAX_WARNINGS:
                    self.warnings[re.sub(r"\\(.)", r"\1", text)] = None

    def abort(self) -> None:
        """End every exchange in progress; with `stopped` set the threads in them raise Cancelled."""
        with self._lock:
            live = list(self._live)
        for reply in live:
            if isinstance(reply, HTTPResponse):
                try:
                    reply.shutdown()
                except (OSError, ValueError, RuntimeError):
                    reply.close()

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.clear()

    def _check(self) -> None:
        if self.stopped.is_set():
            raise Cancelled("the transfer was cancelled", code="cancelled")

    def _pool(self, origin: Origin, local: bool) -> urllib3.PoolManager:
        with self._lock:
            pool = self._pools.get((origin, local))
            if pool is None:
                pool = self._pools[origin, local] = self._make_pool(origin, local)
            return pool

    def _make_pool(self, origin: Origin, local: bool) -> urllib3.PoolManager:
        width = max(8, self._registries.downloads + 1, self._registries.uploads + 1)
        options: dict[str, Any] = {"maxsize": width, "blocksize": CHUNK, "retries": False}
        if origin.scheme == "https":
            kept = self._registries.tls_of(origin)
            options["ssl_context"] = self._trusted.get(origin, Tls()).joined(kept).context()
        if proxy := self._proxies.proxy_for(origin):
            # The proxy decides which addresses it connects to; we only see its own.
            headers = urllib3.make_headers(proxy_basic_auth=proxy.user) if proxy.user else None
            pool: urllib3.PoolManager = urllib3.ProxyManager(proxy.url, proxy_headers=headers, **options)
            pool.pool_classes_by_scheme = _ANYWHERE
            return pool
        pool = urllib3.PoolManager(**options)
        pool.pool_classes_by_scheme = _ANYWHERE if local else _PUBLIC
        return pool


def retry_after_s(value: str) -> float | None:
    """Seconds a Retry-After header asks to wait (RFC 9110 section 10.2.3), at most RETRY_AFTER_CAP_S; None without."""
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(int(value)), RETRY_AFTER_CAP_S)
    try:
        at = email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError):
        return None
    return min(max(at - time.time(), 0.0), RETRY_AFTER_CAP_S)


def _translate(error: Exception, origin: Origin | None) -> Exception:
    where = origin.url if origin else "the registry"
    reason = str(getattr(error, "reason", None) or error)
    # urllib3 prefixes messages with the repr of its own objects.
    reason = re.sub(r"<[^>]*>:? ?|\w*ConnectionPool\([^)]*\):? ?|\w+Connection\([^)]*\):? ?", "", reason)
    if isinstance(error, _NotPublic):
        return Denied(f"{where} is refused: {error}", code="address-refused", subject=where)
    if isinstance(error, SSLError | ssl.SSLError):
        return Unavailable(
            f"cannot make a trusted connection to {where}: {reason}",
            code="tls",
            subject=where,
            hint=f"put the registry's CA certificate into {CERTS_DIRS[0]}/<host:port>/ca.crt",
        )
    if isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError) and not isinstance(
        error, urllib3.exceptions.NewConnectionError
    ):
        return TimedOut(f"{where} did not answer in time", code="registry-timeout", subject=where, temporary=True)
    # A refused connection or an unknown name will not change within seconds; a lost one may.
    cause = error.original_error if isinstance(error, urllib3.exceptions.ProxyError) else error
    fatal = isinstance(cause, urllib3.exceptions.NewConnectionError | urllib3.exceptions.LocationParseError)
    if cause is not error:
        where += ", through the proxy"
    return Unavailable(
        f"cannot reach {where}: {reason}" if fatal else f"connection to {where} was lost: {reason}",
        code="registry-unreachable" if fatal else "connection-lost",
        subject=where,
        temporary=not fatal,
    )
