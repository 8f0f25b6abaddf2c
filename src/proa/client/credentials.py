"""Registry credentials from Docker's configuration file and its credential helpers, as the engine's API wants them.

    $DOCKER_CONFIG/config.json (~/.docker/config.json):
      {"auths": {"host:5000": {"auth": base64 of user:password} | {"identitytoken": ...}},
       "credHelpers": {"host": "name"}, "credsStore": "name"}

Helpers are programs `docker-credential-NAME get|store|erase` that speak JSON on stdin and stdout.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
import tempfile
from typing import Any

from proa.client.names import DOCKER_HUB, registry_of
from proa.errors import Invalid, NotFound

__all__ = ["auth_header", "config_path", "credentials_for", "forget", "header_of", "store"]

_TOKEN_USER = "<token>"  # noqa: S105 - what helpers answer as the user name of an identity token


def config_path() -> str:
    """The path of Docker's configuration file."""
    return os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json")


def header_of(credentials: dict[str, str]) -> tuple[str, str]:
    """The X-Registry-Auth header of these credentials."""
    raw = json.dumps(credentials).encode()
    return ("X-Registry-Auth", base64.urlsafe_b64encode(raw).decode())


def auth_header(image: str) -> tuple[str, str]:
    """The header for a pull or push of an image; empty credentials when there are none.

    Raises Invalid when the configuration cannot be read.
    """
    return header_of(credentials_for(registry_of(image)))


def credentials_for(registry: str) -> dict[str, str]:
    """`username`, `password` or `identitytoken`, and `serveraddress`; empty when nothing is known."""
    config = _read()
    helper = _helper(config, registry)
    if helper:
        return _ask(helper, registry)
    auths = config.get("auths")
    entries = auths if isinstance(auths, dict) else {}
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
        user = _TOKEN_USER if identity_token else username
        _run(helper, "store", json.dumps({"ServerURL": registry, "Username": user, "Secret": secret}))
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
        _run(helper, "erase", registry)
    if known:
        _write(config)
    return known


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
    path = config_path()
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
    helpers = config.get("credHelpers")
    host = "index.docker.io" if registry == DOCKER_HUB else registry
    name = helpers.get(registry) or helpers.get(host) if isinstance(helpers, dict) else ""
    name = name or config.get("credsStore") or ""
    if not isinstance(name, str) or "/" in name:
        raise Invalid(f"bad name of a credential helper: {name!r}", code="bad-docker-config")
    return name


def _ask(helper: str, registry: str) -> dict[str, str]:
    try:
        answer = json.loads(_run(helper, "get", registry))
    except NotFound:
        return {}
    user, secret = str(answer.get("Username", "")), str(answer.get("Secret", ""))
    if user == _TOKEN_USER:
        return {"identitytoken": secret, "serveraddress": registry}
    return {"username": user, "password": secret, "serveraddress": registry} if user else {}


def _run(helper: str, verb: str, text: str) -> str:
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, verb], input=text, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Invalid(f"cannot run the credential helper {program}: {error}", code="credential-helper-failed") from None
    if done.returncode:
        if "not found" in done.stdout.lower():
            raise NotFound(done.stdout.strip(), code="no-credentials")
        raise Invalid(
            f"{program} {verb}: {done.stdout.strip() or done.stderr.strip()}", code="credential-helper-failed"
        )
    return done.stdout
