"""Check credentials against a registry, as `docker login` asks the engine to (POST /auth)."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path

from proa.errors import Unauthorized
from proa.transfer.credentials import Credentials
from proa.transfer.endpoint import Endpoint
from proa.transfer.failures import registry_failure
from proa.transfer.transport import CERTS_DIR, Transport


def check_login(
    registry: str,
    credentials: Credentials,
    *,
    insecure: bool = False,
    allowed_realms: Collection[str] = (),
    certs_dir: Path = CERTS_DIR,
    stopped: threading.Event | None = None,
) -> None:
    """Return when `registry` (host with optional port, or docker.io) accepts the credentials.

    Raises Unauthorized, Denied, Unavailable, TimedOut.
    """
    transport = Transport(certs_dir=certs_dir, stopped=stopped)
    try:
        endpoint = Endpoint(registry, transport, credentials, insecure=insecure, allowed_realms=allowed_realms)
        reply = endpoint.call("GET", "/v2/", ())
        if reply.status == 401:
            raise Unauthorized(f"login to {registry} was refused", code="login-refused", subject=registry)
        if reply.status != 200:
            raise registry_failure(reply, f"login to {registry} failed", registry)
    finally:
        transport.close()
