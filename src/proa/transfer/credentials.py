"""Who we are at one registry, and how Docker clients tell the engine."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from proa.errors import Invalid
from proa.oci import strict_loads

LIMIT = 64 << 10


class Credentials(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """A name and password, an identity token (OAuth2 refresh token), or a ready registry token.

    `server` is the host it was given for, empty when the caller did not say; it is never sent to another.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, server={self.server!r}, secret=…)"

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.identity_token or self.registry_token)

    @property
    def basic(self) -> str:
        """The value of an Authorization header of scheme Basic (RFC 7617, UTF-8)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


def credentials_from_header(header: str) -> Credentials | None:
    """What X-Registry-Auth carries: base64url of JSON; empty, `{}` and `e30=` mean none. Raises Invalid."""
    value = _decoded(header, "X-Registry-Auth")
    return credentials_from_mapping(value)


def credentials_by_place(header: str) -> dict[str, Credentials]:
    """What X-Registry-Config carries, as docker build sends it: the same by registry, here also `registry/repository`.

    Raises Invalid.
    """
    found = {}
    for place, value in _decoded(header, "X-Registry-Config").items():
        if isinstance(value, dict) and (credentials := credentials_from_mapping(value)):
            found[place] = credentials
    return found


def _decoded(header: str, name: str) -> dict[str, Any]:
    header = header.strip()
    if not header:
        return {}
    if len(header) > LIMIT or re.fullmatch(r"[A-Za-z0-9+/_-]+={0,2}", header) is None:
        raise Invalid(f"invalid {name} header: it is no base64", code="registry-auth-invalid")
    text = header.rstrip("=").replace("+", "-").replace("/", "_")
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        raise Invalid(f"invalid {name} header: it is no base64", code="registry-auth-invalid") from None
    value = strict_loads(raw, LIMIT, name)
    if not isinstance(value, dict):
        raise Invalid(f"invalid {name} header: it is no JSON object", code="registry-auth-invalid")
    return value


def credentials_from_mapping(value: Mapping[str, Any]) -> Credentials | None:
    """An AuthConfig of the Docker API (username, password, auth, identitytoken, registrytoken). Raises Invalid."""

    def text(key: str) -> str:
        found = value.get(key) or ""
        if not isinstance(found, str) or re.search(r"[\x00-\x1f\x7f]", found):
            raise Invalid(f"invalid registry credentials: {key} is no text", code="registry-auth-invalid")
        return found

    username, password = text("username"), text("password")
    if (auth := text("auth")) and not username:
        try:
            username, _, password = base64.b64decode(auth, validate=True).decode("utf-8").partition(":")
        except ValueError:
            raise Invalid("invalid registry credentials: auth is no base64", code="registry-auth-invalid") from None
    found = Credentials(
        username=username,
        password=password,
        identity_token=text("identitytoken"),
        registry_token=text("registrytoken"),
        server=text("serveraddress"),
    )
    return found or None
