"""Find the credentials a user saved for a registry: `~/.docker/config.json` and its credential helpers.

Standard library only, so that a command line can ask without loading anything of the transfer machinery.
An entry is a dict with keys of Docker's AuthConfig: username, password, identitytoken, registrytoken, serveraddress.
"""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

from proa.errors import Invalid, Unavailable

HUB_KEY = "https://index.docker.io/v1/"
LIMIT = 1 << 20
HELPER_TIMEOUT_S = 30.0
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

AuthConfig = dict[str, str]


def config_path() -> Path:
    """Where the file is: $DOCKER_CONFIG/config.json, else ~/.docker/config.json."""
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def load_config(path: Path | None = None) -> dict[str, Any]:
    """The file as a dict, empty when there is none. Raises Invalid when it is unreadable."""
    path = path or config_path()
    try:
        with open(path, "rb") as f:
            raw = f.read(LIMIT + 1)
    except FileNotFoundError:
        return {}
    except OSError as e:
        raise Invalid(f"cannot read {path}: {e.strerror}", code="docker-config-invalid", subject=str(path)) from None
    try:
        value = json.loads(raw) if len(raw) <= LIMIT else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Invalid(f"{path} is no JSON object", code="docker-config-invalid", subject=str(path))
    return value


def find_auth(registry: str, path: Path | None = None) -> AuthConfig | None:
    """The saved credentials for `registry` (a host with optional port, or docker.io), or None.

    A helper of its own (`credHelpers`) wins over the common store (`credsStore`), and both over `auths`.
    Raises Invalid, Unavailable (a helper failed).
    """
    config = load_config(path)
    key = HUB_KEY if registry in _HUB else registry
    helpers = config.get("credHelpers")
    if isinstance(helpers, dict):
        for name in _spellings(registry):
            if isinstance(helper := helpers.get(name), str) and helper:
                return _ask_helper(helper, key if registry in _HUB else name)
    store = config.get("credsStore")
    if isinstance(store, str) and store and (found := _ask_helper(store, key)):
        return found
    auths = config.get("auths")
    if isinstance(auths, dict):
        for name, entry in auths.items():
            if isinstance(entry, dict) and _host_of(str(name)) in _hosts(registry) and (found := _entry(entry, key)):
                return found
    return None


def encode_auth(auth: AuthConfig | None) -> str:
    """`auth` as the value of an X-Registry-Auth header (base64url of JSON, padded)."""
    return base64.urlsafe_b64encode(json.dumps(auth or {}).encode()).decode("ascii")


def _spellings(registry: str) -> tuple[str, ...]:
    return (*_HUB, HUB_KEY) if registry in _HUB else (registry,)


def _hosts(registry: str) -> tuple[str, ...]:
    return _HUB if registry in _HUB else (registry.lower(),)


def _host_of(key: str) -> str:
    """The host of a key of `auths`, which may be a URL with a path."""
    return re.sub(r"^https?://", "", key).partition("/")[0].lower()


def _entry(entry: dict[str, Any], key: str) -> AuthConfig | None:
    def text(name: str) -> str:
        value = entry.get(name)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if text("auth") and not username:
        try:
            decoded = base64.b64decode(text("auth"), validate=True).decode("utf-8")
        except ValueError:
            raise Invalid(f"saved credentials for {key} are no base64", code="docker-config-invalid") from None
        username, _, password = decoded.partition(":")
        password = password.strip("\x00")
    found = {
        "username": username,
        "password": password,
        "identitytoken": text("identitytoken"),
        "registrytoken": text("registrytoken"),
    }
    found = {name: value for name, value in found.items() if value}
    return {**found, "serveraddress": key} if found else None


def _ask_helper(name: str, key: str) -> AuthConfig | None:
    """Run `docker-credential-NAME get` with the key on standard input (docker-credential-helpers, README)."""
    import subprocess  # only people with helpers pay for it

    if _HELPER.fullmatch(name) is None:
        raise Invalid(f"invalid credential helper name {name[:80]!r}", code="docker-config-invalid")
    program = _program(f"docker-credential-{name}")
    if program is None:
        raise Unavailable(f"credential helper docker-credential-{name} is not in PATH", code="credential-helper")
    try:
        done = subprocess.run(
            [program, "get"], input=key.encode(), capture_output=True, timeout=HELPER_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Unavailable(f"credential helper {program} failed: {e}", code="credential-helper") from None
    said = (done.stdout or done.stderr).decode("utf-8", "replace").strip()
    if done.returncode != 0:
        if "credentials not found" in said:
            return None
        raise Unavailable(f"credential helper {program} failed: {said[:200]}", code="credential-helper")
    try:
        value = json.loads(done.stdout)
        username, secret = value["Username"], value["Secret"]
        if not isinstance(username, str) or not isinstance(secret, str):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unavailable(f"credential helper {program} answered no credentials", code="credential-helper") from None
    if username == "<token>":
        return {"identitytoken": secret, "serveraddress": key}
    return {"username": username, "password": secret, "serveraddress": key}


def _program(name: str) -> str | None:
    """The absolute path of a program; relative entries of PATH are not looked at."""
    for folder in os.environ.get("PATH", "").split(":"):
        if folder.startswith("/") and os.access(candidate := f"{folder}/{name}", os.X_OK):
            return candidate
    return None
