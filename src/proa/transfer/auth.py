"""Become authorized at a registry: Basic, and Bearer tokens from a token server; flows without I/O.

    registry   401 WWW-Authenticate: Bearer realm="https://auth.example/token",service="s",scope="…"
    client  -> token server   GET realm?service=s&scope=…   with Basic, or POST with an identity token
    server  -> client         {"token": …, "expires_in": …}
    client  -> registry       Authorization: Bearer …

Sources: distribution, "Token Authentication Specification" and "OAuth2 Token Authentication"; RFC 6750, RFC 7617.
A registry chooses the realm, so it could name anyone: secrets go only to a realm of the registry's own domain or one
that is listed, and never from https to plain http (CVE-2020-15157, CVE-2026-33540).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Sequence
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit, urlunsplit

from proa.errors import Denied, Invalid, ProaError, Unauthorized, Unavailable
from proa.oci import strict_loads
from proa.transfer.challenge import Challenge, parse_challenges
from proa.transfer.credentials import Credentials
from proa.transfer.wire import Flow, HttpReply, HttpRequest, Origin, origin_of

CLIENT_ID = "proa"
# A token server that does not say means 60 s; tokens are dropped a little early, so none dies on its way.
DEFAULT_LIFE_S = 60.0
MARGIN_S = 5.0
_BEARER = re.compile(r"[\x21-\x7e]{1,65536}")


class Token(NamedTuple):
    """The value of an Authorization header and until when (monotonic seconds) it may be sent.

    refresh: what gets another one later without a password, when it was asked for and given
    """

    header: str
    expires: float
    refresh: str = ""


def realm_is_trusted(registry: Origin, realm: Origin, allowed: Collection[str] = ()) -> bool:
    """May secrets for `registry` be sent to `realm`?

    True for the same host on any port, a host under the same registrable domain, or one in `allowed`;
    never for plain http when the registry itself is https.
    """
    if realm.scheme == "http" and registry.scheme == "https":
        return False
    if realm.host == registry.host or realm.host in allowed:
        return True
    if registry.is_loopback or realm.is_loopback or _is_address(registry.host) or _is_address(realm.host):
        return False
    domain = _registrable(registry.host)
    return domain is not None and (realm.host == domain or realm.host.endswith("." + domain))


def _is_address(host: str) -> bool:
    return ":" in host or re.fullmatch(r"[0-9.]+", host) is not None


def _registrable(host: str) -> str | None:
    """The domain someone can register that `host` is under, as far as that shows without the public suffix list.

    Two labels, or three where the last two look like a public suffix (`co.uk`, `com.au`): short under a country.
    """
    labels = host.split(".")
    if len(labels) < 2:
        return None
    need = 3 if len(labels[-1]) == 2 and len(labels[-2]) <= 3 else 2
    return ".".join(labels[-need:]) if len(labels) >= need else None


def token_flow(
    challenge: Challenge,
    registry: Origin,
    credentials: Credentials | None,
    scopes: Sequence[str],
    allowed_realms: Collection[str] = (),
    *,
    offline: bool = False,
) -> Flow[Token]:
    """Get a Bearer token for `scopes`; `offline` also asks for a refresh token, as a login does.

    Raises Unauthorized, Denied, Unavailable, Invalid.
    """
    realm = challenge.parameters.get("realm", "")
    origin = origin_of(realm)
    if credentials and not realm_is_trusted(registry, origin, allowed_realms):
        raise Denied(
            f"{registry.url} wants its credentials sent to {origin.url}, which is not of its domain",
            code="realm-not-trusted",
            subject=origin.url,
            hint="allow that token server in the configuration, or pull without credentials",
        )
    service = challenge.parameters.get("service", "")
    if credentials and credentials.identity_token:
        form = {"grant_type": "refresh_token", "refresh_token": credentials.identity_token}
        reply = yield _oauth_request(realm, form, service, scopes)
    else:
        reply = yield _get_request(realm, credentials, service, scopes, offline=offline)
        if reply.status in (404, 405) and credentials:
            # OAuth2-only servers have no GET (distribution, "OAuth2 Token Authentication").
            form = {"grant_type": "password", "username": credentials.username, "password": credentials.password}
            if offline:
                form["access_type"] = "offline"
            reply = yield _oauth_request(realm, form, service, scopes)
    return _read_token(reply, origin)


def _get_request(
    realm: str, credentials: Credentials | None, service: str, scopes: Sequence[str], *, offline: bool
) -> HttpRequest:
    query = [("service", service)] if service else []
    query += [("scope", scope) for scope in scopes]
    query.append(("client_id", CLIENT_ID))
    headers = {}
    if credentials and credentials.username:
        query.append(("account", credentials.username))
        if offline:
            query.append(("offline_token", "true"))
        headers["Authorization"] = credentials.basic
    parts = urlsplit(realm)
    joined = "&".join(part for part in (parts.query, urlencode(query)) if part)
    return HttpRequest("GET", urlunsplit(parts._replace(query=joined, fragment="")), headers)


def _oauth_request(realm: str, form: dict[str, str], service: str, scopes: Sequence[str]) -> HttpRequest:
    body = urlencode({**form, "service": service, "scope": " ".join(scopes), "client_id": CLIENT_ID})
    return HttpRequest("POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, body.encode("ascii"))


def _read_token(reply: HttpReply, origin: Origin) -> Token:
    if reply.status in (400, 401, 403):
        raise Unauthorized(
            f"unauthorized: incorrect username or password ({origin.url} answered {reply.status})",
            code="login-refused",
            subject=origin.url,
            hint="log in again with: proa login",
        )
    if reply.status != 200:
        raise Unavailable(f"token server {origin.url} answered {reply.status}", code="token-server", subject=origin.url)
    value = strict_loads(reply.body, len(reply.body), "token reply")
    text = (value.get("token") or value.get("access_token")) if isinstance(value, dict) else None
    if not isinstance(text, str) or _BEARER.fullmatch(text) is None:
        raise Unavailable(f"token server {origin.url} sent no token", code="token-server", subject=origin.url)
    life = value.get("expires_in")
    seconds = float(life) if isinstance(life, int | float) and not isinstance(life, bool) else DEFAULT_LIFE_S
    seconds = min(max(seconds, DEFAULT_LIFE_S), 86400.0)
    refresh = value.get("refresh_token")
    if not isinstance(refresh, str) or _BEARER.fullmatch(refresh) is None:
        refresh = ""
    return Token(f"Bearer {text}", time.monotonic() + seconds - MARGIN_S, refresh)


class Authorizer:
    """What to put into Authorization at one registry; remembers tokens by scope. Safe to use from many threads.

    The first reply with status 401 teaches it the scheme; `flow` then yields what must be asked of the token server.
    """

    def __init__(
        self,
        registry: Origin,
        credentials: Credentials | None = None,
        allowed_realms: Collection[str] = (),
        *,
        offline: bool = False,
    ) -> None:
        self.registry = registry
        self._credentials = credentials
        self._allowed_realms = allowed_realms
        self._challenge: Challenge | None = None
        self._offline = offline
        self._tokens: dict[tuple[str, ...], Token] = {}
        self.refresh_token = ""
        self.lock = threading.Lock()

    def header(self, scopes: Sequence[str]) -> str | None:
        """The header's value as far as it is known without asking anyone."""
        if self._credentials and self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            return self._credentials.basic if self._credentials else None
        token = self._tokens.get(tuple(scopes))
        return token.header if token and token.expires > time.monotonic() else None

    @property
    def needs_token(self) -> bool:
        """True when the registry is known to want Bearer tokens."""
        return self._challenge is not None and self._challenge.scheme == "bearer"

    def learn(self, www_authenticate: str) -> None:
        """Take a challenge from a 401 reply. Raises Unauthorized, Denied, when nothing offered can be done."""
        offered = {c.scheme: c for c in reversed(parse_challenges(www_authenticate))}
        if "bearer" in offered and offered["bearer"].parameters.get("realm"):
            self._challenge = offered["bearer"]
        elif "basic" in offered:
            if not self._credentials or not self._credentials.username:
                raise self.refusal("no basic auth credentials")
            self._challenge = offered["basic"]
        else:
            raise Denied(
                f"{self.registry.url} offers only authentication this client does not know: "
                f"{', '.join(sorted(offered)) or 'none'}",
                code="auth-scheme",
                subject=self.registry.url,
            )

    def flow(self, scopes: Sequence[str]) -> Flow[str | None]:
        """Get the header for `scopes`, asking the token server where there is one; hold `lock` while driving it."""
        if (known := self.header(scopes)) is not None or not self.needs_token:
            return known
        assert self._challenge is not None
        token = yield from token_flow(
            self._challenge, self.registry, self._credentials, scopes, self._allowed_realms, offline=self._offline
        )
        self.refresh_token = token.refresh or self.refresh_token
        self._tokens[tuple(scopes)] = token
        return token.header

    def forget(self, scopes: Sequence[str]) -> None:
        """Drop a token the registry refused."""
        self._tokens.pop(tuple(scopes), None)

    def refusal(self, why: str) -> ProaError:
        """The error for a registry that still says 401."""
        return Unauthorized(
            f"unauthorized at {self.registry.url}: {why}",
            code="unauthorized",
            subject=self.registry.url,
            hint="log in with: proa login",
        )


def check_credentials_server(credentials: Credentials | None, registry: str) -> Credentials | None:
    """Drop credentials that name another server than `registry`; raises Invalid for an unreadable server name."""
    if credentials is None or not credentials.server:
        return credentials
    host = re.sub(r"^https?://", "", credentials.server).partition("/")[0].lower()
    if not host:
        raise Invalid(f"invalid serveraddress {credentials.server[:200]!r}", code="registry-auth-invalid")
    hub = ("docker.io", "index.docker.io", "registry-1.docker.io")
    return credentials if host == registry.lower() or (host in hub and registry in hub) else None
