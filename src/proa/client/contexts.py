"""Docker's contexts: engines by name, as the docker command keeps them.

    $DOCKER_CONFIG (~/.docker)
      config.json                              {"currentContext": NAME}
      contexts/meta/SHA256-OF-NAME/meta.json   {"Name", "Metadata": {"Description"},
                                                "Endpoints": {"docker": {"Host", "SkipTLSVerify"}}}
      contexts/tls/SHA256-OF-NAME/docker/      ca.pem, cert.pem, key.pem: TLS is spoken where one of them is

`default` is no context of the store: the engine there is without one. Only a command that is called as `docker` follows
currentContext: Docker's own engine may be there, and `proa` would stop showing what it runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from proa.client.endpoint import Endpoint, own, parse_host, variable
from proa.client.tls import Tls, config_dir
from proa.errors import Invalid, NotFound

__all__ = ["DEFAULT", "Context", "current", "endpoint_of", "find", "walk"]

DEFAULT = "default"
_FILES = (("ca", "ca.pem"), ("certificate", "cert.pem"), ("key", "key.pem"))


class Context:
    """One context of the store; `document` is its meta.json."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.name = str(document["Name"])
        identity = hashlib.sha256(self.name.encode()).hexdigest()
        self.meta_path = f"{config_dir()}/contexts/meta/{identity}"
        self.tls_path = f"{config_dir()}/contexts/tls/{identity}"
        endpoint = document.get("Endpoints", {}).get("docker", {})
        self.host = str(endpoint.get("Host") or "")
        self.trusting = bool(endpoint.get("SkipTLSVerify"))
        self.description = str((document.get("Metadata") or {}).get("Description") or "")

    @property
    def tls_files(self) -> list[str]:
        """The names of what it has for TLS."""
        return [name for _, name in _FILES if os.path.exists(f"{self.tls_path}/docker/{name}")]

    @property
    def tls(self) -> Tls | None:
        """How TLS is spoken there, None where it is not."""
        there = self.tls_files
        if not there and not self.trusting:
            return None
        paths = {word: f"{self.tls_path}/docker/{name}" for word, name in _FILES if name in there}
        return Tls(**paths, verify=not self.trusting)


def endpoint_of(name: str) -> Endpoint:
    """The engine of a context. Raises NotFound, and Invalid for a host that is not an address."""
    if name == DEFAULT:
        return own()
    context = find(name)
    if not context.host:
        return own()
    return parse_host(context.host, f"the host of the context {name}", context.tls or False)


def find(name: str) -> Context:
    """The context of a name. Raises NotFound, Invalid when it cannot be read."""
    identity = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    path = f"{config_dir()}/contexts/meta/{identity}/meta.json"
    try:
        return _read(path)
    except FileNotFoundError:
        raise NotFound(
            f'context "{name}": context not found: no {path}',
            code="context-not-found",
            subject=name,
            hint="`docker context create` makes one; --host names an engine without one",
        ) from None


def walk() -> list[Context]:
    """All contexts of the store by name, without those that cannot be read."""
    found = []
    place = f"{config_dir()}/contexts/meta"
    try:
        names = os.listdir(place)
    except OSError:
        return []
    for name in names:
        try:
            found.append(_read(f"{place}/{name}/meta.json"))
        except (OSError, Invalid):
            continue
    return sorted(found, key=lambda context: context.name)


def current() -> str:
    """The name of the context that the docker command is in: the environment's, else its configuration's."""
    if variable("PROA_HOST") or variable("DOCKER_HOST"):
        return DEFAULT
    if name := variable("DOCKER_CONTEXT"):
        return name
    try:
        with open(f"{config_dir()}/config.json", "rb") as file:
            name = json.load(file)["currentContext"]
    except (OSError, ValueError, KeyError, TypeError):
        return DEFAULT
    return name if isinstance(name, str) and name else DEFAULT


def _read(path: str) -> Context:
    with open(path, "rb") as file:
        raw = file.read(1 << 20)
    try:
        return Context(json.loads(raw))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Invalid(f"cannot read {path}: it is no context of Docker's", code="context-file", subject=path) from None
