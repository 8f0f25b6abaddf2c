"""Registry credentials from Docker's configuration file and its credential helpers, as the engine's API wants them.

    $DOCKER_CONFIG/config.json (~/.docker/config.json):
      {"auths": {"host:5000": {"auth": base64 of user:password} | {"identitytoken": ...}},
       "credHelpers": {"host": "name"}, "credsStore": "name"}

A key may go deeper than the host (`host:5000/team`): the deepest that holds an image is used for it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from proa.client import credential_helpers
from proa.client.names import DOCKER_HUB, registry_of
from proa.errors import Invalid, NotFound

__all__ = [
    "auth_header",
    "choose_context",
    "config_path",
    "credentials_for",
    "forget",
    "header_of",
    "headers_of_places",
    "store",
]


def config_path() -> str:
    """The path of Docker's configuration file."""
    return os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json")


def header_of(credentials: dict[str, str], name: str = "X-Registry-Auth") -> tuple[str, str]:
    """The header that carries these credentials."""
    return _header(credentials, name)


def _header(value: Mapping[str, object], name: str) -> tuple[str, str]:
    raw = json.dumps(value).encode()
    return (name, base64.urlsafe_b64encode(raw).decode())


def auth_header(image: str, name: str = "X-Registry-Auth") -> tuple[str, str]:
    """The header for a pull or push of an image; empty credentials when there are none.

    Raises Invalid when the configuration cannot be read.
    """
    return header_of(credentials_for(registry_of(image), image), name)


def headers_of_places(repositories: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The header with the credentials for repositories (`registry/repository`), of those that have some.

    Raises Invalid when the configuration cannot be read.
    """
    places: dict[str, dict[str, str]] = {}
    for repository in repositories:
        name = repository.partition("/")[0]
        registry = registry_of(repository)
        if name not in places:
            places[name] = credentials_for(registry)
        if (own := credentials_for(registry, repository)) != places[name]:
            places[repository] = own
    known = {place: found for place, found in places.items() if found}
    return (_header(known, "X-Registry-Config"),) if known else ()


def credentials_for(registry: str, image: str = "") -> dict[str, str]:
    """`username`, `password` or `identitytoken`, and `serveraddress`; empty when nothing is known.

    image: what they are for, where there are different ones in one registry
    """
    config = _read()
    auths = config.get("auths")
    entries = auths if isinstance(auths, dict) else {}
    front = image.partition("@")[0]
    while image.startswith(f"{registry}/") and "/" in front:
        if front in entries and isinstance(entries[front], dict) and (found := _decode(entries[front], registry)):
            return found
        front = front.rpartition("/")[0]
    helper = _helper(config, registry)
    if helper:
        return _ask(helper, registry)
    for key in (
        registry,
        f"https://{registry}",
        f"http://{registry}",
        f"https://{registry}/v1/",
        f"https://{registry}/v2/",
    ):
        entry = entries.get(key)
        if isinstance(entry, dict):
            return _decode(entry, registry)
    return {}


def store(registry: str, username: str, password: str, identity_token: str = "") -> str:
    """Keep credentials, with the helper if one is configured; returns where they went.

    Raises Invalid when they cannot be kept.
    """
    config = _read()
    helper = _helper(config, registry)
    if helper:
        secret = identity_token or password
        credential_helpers.keep(helper, registry, credential_helpers.TOKEN_USER if identity_token else username, secret)
        config.setdefault("auths", {})[registry] = {}
        _write(config)
        return f"docker-credential-{helper}"
    entry = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
    if identity_token:
        entry = {"auth": base64.b64encode(f"{username}:".encode()).decode(), "identitytoken": identity_token}
    config.setdefault("auths", {})[registry] = entry
    _write(config)
    return config_path()


def forget(registry: str) -> bool:
    """Remove a registry's credentials; whether there were any."""
    config = _read()
    helper = _helper(config, registry)
    known = config.get("auths", {}).pop(registry, None) is not None
    if helper:
        known = bool(_ask(helper, registry)) or known
        try:
            credential_helpers.remove(helper, registry)
        except NotFound:
            pass
    if known:
        _write(config)
    return known


def choose_context(name: str) -> None:
    """Write into the same file which of Docker's contexts is the current one. Raises Invalid."""
    config = _read()
    config["currentContext"] = name
    _write(config)


def _read() -> dict[str, Any]:
    path = config_path()
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Invalid(
            f"cannot read the configuration {path}: {error}", code="bad-docker-config", subject=path
        ) from None
    if not isinstance(config, dict):
        raise Invalid(f"the configuration {path} is not a JSON object", code="bad-docker-config", subject=path)
    return config


def _write(config: dict[str, Any]) -> None:
    path = os.path.realpath(config_path())  # a link to it stays one
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix="config.json.", dir=directory)  # mode 0600
    try:
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(config, file, indent="\t")
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _decode(entry: dict[str, Any], registry: str) -> dict[str, str]:
    result = {"serveraddress": registry}
    if entry.get("identitytoken"):
        return {**result, "identitytoken": str(entry["identitytoken"])}
    if entry.get("registrytoken"):
        return {**result, "registrytoken": str(entry["registrytoken"])}
    username, password = str(entry.get("username", "")), str(entry.get("password", ""))
    if entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Invalid(
                f"the credentials of {registry} in {config_path()} are not base64",
                code="bad-docker-config",
                subject=registry,
            ) from None
        username, _, password = text.partition(":")
    return {**result, "username": username, "password": password.rstrip("\0")} if username else {}


def _helper(config: dict[str, Any], registry: str) -> str:
    """The helper for a registry: one of its own, which may be none, goes before the one for all."""
    helpers = config.get("credHelpers")
    name: Any = None
    if isinstance(helpers, dict):
        host = "index.docker.io" if registry == DOCKER_HUB else registry
        name = next((helpers[key] for key in (registry, host) if key in helpers), None)
    if name is None:
        name = config.get("credsStore") or ""
    if not isinstance(name, str):
        raise Invalid(f"bad name of a credential helper: {name!r}", code="bad-docker-config")
    return name


def _ask(helper: str, registry: str) -> dict[str, str]:
    try:
        user, secret = credential_helpers.ask(helper, registry)
    except NotFound:
        return {}
    if user == credential_helpers.TOKEN_USER:
        return {"identitytoken": secret, "serveraddress": registry}
    return {"username": user, "password": secret, "serveraddress": registry} if user else {}
