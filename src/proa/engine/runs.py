"""Runs: for every running container, the connection to its monitor and whether it has ended."""

from __future__ import annotations

import threading
from typing import Any

from proa.engine.catalog import Entry
from proa.errors import Conflict
from proa.monitor.client import MonitorConnection
from proa.monitor.protocol import ExecTarget


class Run:
    """One life of a container: from start to exit."""

    __slots__ = ("connection", "ended", "exec_target", "exit", "settled")

    def __init__(self, connection: MonitorConnection) -> None:
        self.connection = connection
        self.exec_target: ExecTarget | None = None  # once there was an exec
        self.ended = threading.Event()
        self.exit: dict[str, Any] = {}
        self.settled = False


class Runs:
    """Running containers by id."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}

    def add(self, entry: Entry, connection: MonitorConnection) -> Run:
        """Note that the container runs."""
        run = self._runs[entry.record.id] = Run(connection)
        return run

    def find(self, entry: Entry) -> Run | None:
        """The current life, None when the container does not run."""
        return self._runs.get(entry.record.id)

    def current(self, entry: Entry) -> Run:
        """The current life. Raises Conflict when the container does not run."""
        run = self._runs.get(entry.record.id)
        if run is None:
            raise Conflict(f"Container {entry.record.id} is not running", code="not-running", subject=entry.record.id)
        return run

    def monitor(self, entry: Entry) -> MonitorConnection:
        """The monitor of a running container. Raises Conflict when it does not run."""
        return self.current(entry).connection

    def drop(self, entry: Entry) -> None:
        """Note that the container has ended."""
        self._runs.pop(entry.record.id, None)
