"""Adoption: find the monitors of the containers that an earlier engine started, all at once.

A monitor whose socket takes connections lives, so its container is adopted, whether it answers soon or not: somebody
may have stopped it, or the machine may be too busy to let a thousand of them speak. Who is late tells its state later.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from proa.errors import NotFound, ProaError
from proa.monitor.client import MonitorConnection

if TYPE_CHECKING:
    from proa.engine.engine import Engine

log = logging.getLogger(__name__)

#: How long the start of the engine waits for all monitors together.
ANSWER_S = 1.0


class Joined:
    """A monitor: its connection, its state unless it is late, and events that came meanwhile."""

    __slots__ = ("connection", "early", "state")

    def __init__(self, connection: MonitorConnection) -> None:
        self.connection = connection
        self.state: dict[str, Any] | None = None
        self.early: list[dict[str, Any]] = []

    def listen(self) -> bool:
        """Take in what has come; True when nothing more needs to be waited for."""
        try:
            events = self.connection.pending_events()
        except ProaError as error:
            log.warning("the monitor at %s is not understood: %s", self.connection.path, error)
            return True
        for event in events:
            if event.get("event") == "state":
                self.state = event
            else:
                self.early.append(event)
        return self.state is not None or self.connection.ended


def join_monitors(engine: Engine, containers: Iterable[str]) -> dict[str, Joined]:
    """The monitors that there are, by container id, after at most ANSWER_S."""
    found: dict[str, Joined] = {}
    silent: dict[int, str] = {}
    poller = select.poll()
    for id in containers:  # noqa: A001
        try:
            joined = Joined(MonitorConnection.join(str(engine.socket_path(id))))
        except NotFound:
            continue
        except ProaError as error:
            log.warning("the monitor of %s cannot be reached: %s", id, error)
            continue
        found[id] = joined
        silent[joined.connection.fileno()] = id
        poller.register(joined.connection.fileno(), select.POLLIN)
    deadline = time.monotonic() + ANSWER_S
    while silent and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poller.poll(left * 1000):
            if found[silent[fd]].listen():
                poller.unregister(fd)
                del silent[fd]
    for id in silent.values():  # noqa: A001
        log.warning("the monitor of %s does not answer yet", id)
    return found
