"""Healthchecks: run a container's check every so often and keep what it found (Docker's HEALTHCHECK).

    start -> starting --0--> healthy <--0-- unhealthy       0: a probe that succeeded, which also ends the streak
                 \\__________ n ___________/                 n: `retries` failures in a row; those of the start period
                                                               count only once the container has been healthy

A probe is an exec like any other, so it has the container's limits and filters. The engine runs them: it stays while a
container runs. Nothing is probed while the container is paused.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from proa.engine.agenda import Ticket
from proa.engine.catalog import Entry
from proa.engine.healthcheck import interval_s, judge, probe_command, timeout_s
from proa.engine.probes import Probe
from proa.engine.types import Health, ProbeResult
from proa.errors import ProaError

if TYPE_CHECKING:
    from proa.engine.engine import Engine

log = logging.getLogger(__name__)


class _Checks:
    """The checking of one life of a container: the probe that is due or runs."""

    __slots__ = ("due", "over", "probe")

    def __init__(self) -> None:
        self.due: Ticket | None = None
        self.probe: Probe | None = None
        self.over = False


class HealthChecks:
    """The healthchecks of one engine. The caller of every method but `exec_ended` holds the container's lock."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._checks: dict[str, _Checks] = {}
        self._probes: dict[str, Probe] = {}
        self._lock = threading.Lock()

    def begin(self, entry: Entry) -> None:
        """A container has started: it is `starting`, if it has a check."""
        state = entry.record.state
        if not probe_command(entry.record):
            state.health = None
            return
        state.health = Health(log=state.health.log if state.health else [])
        self.resume(entry)

    def resume(self, entry: Entry) -> None:
        """Check from now on: after the start, a pause, or the engine before."""
        record = entry.record
        if not probe_command(record) or record.state.health is None or record.id in self._checks:
            return
        checks = self._checks[record.id] = _Checks()
        self._plan(entry, checks)

    def suspend(self, entry: Entry) -> None:
        """Check no more for now."""
        checks = self._checks.pop(entry.record.id, None)
        if checks is None:
            return
        checks.over = True
        if checks.due is not None:
            checks.due.cancel()
        if checks.probe is not None:
            checks.probe.abandon()

    def end(self, entry: Entry) -> None:
        """The container has ended: what does not run is not healthy."""
        self.suspend(entry)
        if entry.record.state.health is not None:
            entry.record.state.health.status = "unhealthy"

    def exec_ended(self, event: dict[str, Any]) -> None:
        """An exec has ended; must not block."""
        with self._lock:
            probe = self._probes.get(str(event.get("exec")))
        if probe is not None:
            probe.ended(int(event["status"]))

    def _plan(self, entry: Entry, checks: _Checks) -> None:
        checks.due = self._engine.agenda.later(
            interval_s(entry.record, time.time()), partial(self._probe, entry, checks)
        )

    def _probe(self, entry: Entry, checks: _Checks) -> None:
        record = entry.record
        with entry.lock:
            if checks.over:
                return
            probe = checks.probe = Probe(self._engine, timeout_s(record), partial(self._done, entry, checks))
        try:
            id = probe.prepare(record, probe_command(record))  # noqa: A001
            with self._lock:
                self._probes[id] = probe
            probe.run()
        except ProaError as error:
            probe.fail(error.message)

    def _done(self, entry: Entry, checks: _Checks, probe: Probe, result: ProbeResult) -> None:
        """A probe is over: on a worker."""
        with self._lock:
            self._probes.pop(probe.id, None)
        self._engine.execs.discard(probe.id)
        action = ""
        with entry.lock:
            checks.probe = None
            if checks.over or not entry.record.state.running:
                return
            before = _status(entry)
            entry.record.state.health = judge(entry.record, result)
            after = _status(entry)
            if after != before:
                self._engine.catalog.save(entry)
                if after == "unhealthy" and entry.record.config.healthcheck is not None:
                    action = entry.record.config.healthcheck.on_failure
            self._plan(entry, checks)
        if after != before:
            self._engine.containers.announce(entry, f"health_status: {after}")
            self._engine.lifecycle.health_changed(entry, "healthy" if after == "healthy" else "unhealthy")
        if action:
            self._act(entry, action)

    def _act(self, entry: Entry, action: str) -> None:
        lifecycle, id = self._engine.lifecycle, entry.record.id  # noqa: A001
        log.info("%s is unhealthy: %s", id, action)
        try:
            if action == "restart":
                lifecycle.restart(id)
            elif action == "stop":
                lifecycle.stop(id)
            elif action == "kill":
                lifecycle.kill(id, for_good=False)
        except ProaError as error:
            log.warning("%s of unhealthy %s failed: %s", action, id, error)


def _status(entry: Entry) -> str:
    health = entry.record.state.health
    return health.status if health else ""
