"""What every operation works with: the open engine, the pools, and the service around them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from proa.api.pools import Pools

if TYPE_CHECKING:
    from proa.api.sockets.audit import AuditLog
    from proa.api.sockets.scoped import ScopedSockets
    from proa.engine import Engine


class Service:
    """One engine being served.

    stop: called by `POST /proa/v1/stop`; connections: how many clients are connected.
    """

    def __init__(
        self,
        engine: Engine,
        pools: Pools | None = None,
        *,
        stop: Callable[[], None] = lambda: None,
        connections: Callable[[], int] = lambda: 0,
    ) -> None:
        self.engine = engine
        self.pools = pools or Pools()
        self.stop = stop
        self.connections = connections
        # Lists of containers as they were last asked for: question -> (as of when, answer).
        self.lists: dict[str, tuple[tuple[int, int, int], bytes]] = {}
        self.audit: AuditLog
        self.sockets: ScopedSockets | None = None
        self.started = time.time()
        self.started_monotonic = time.monotonic()
