"""Check credentials against a registry, as `docker login` asks the engine to (POST /auth)."""

from __future__ import annotations

import threading

from proa.errors import Unauthorized
from proa.transfer.credentials import Credentials
from proa.transfer.endpoint import Endpoint
from proa.transfer.failures import registry_failure
from proa.transfer.registries import Registries
from proa.transfer.transport import Transport


def check_login(
    registry: str,
    credentials: Credentials,
    *,
    insecure: bool = False,
    registries: Registries | None = None,
    stopped: threading.Event | None = None,
) -> str:
    """Return when `registry` (host with optional port, or docker.io) accepts the credentials.

    What is returned is an identity token to keep in place of the password, or "" where none is given.
    Raises Unauthorized, Denied, Unavailable, TimedOut.
    """
    settings = registries or Registries()
    transport = Transport(registries=settings, stopped=stopped)
    try:
        hosts = settings.servers(registry, insecure=insecure)
        realms = settings.token_servers
        endpoint = Endpoint(registry, hosts, transport, credentials, offline=True, allowed_realms=realms)
        reply = endpoint.call("GET", "/", ())
        if reply.status == 401:
            raise Unauthorized(f"login to {registry} was refused", code="login-refused", subject=registry)
        if reply.status != 200:
            raise registry_failure(reply, f"login to {registry} failed", registry)
        return endpoint.authorizer.refresh_token
    finally:
        transport.close()
