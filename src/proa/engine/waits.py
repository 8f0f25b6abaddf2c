"""Waits: who waits for a container to end, to be removed, or to be healthy."""

from __future__ import annotations

import threading
from collections.abc import Collection
from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal

from proa.engine.catalog import Entry
from proa.engine.types import ExitStatus
from proa.errors import Conflict

if TYPE_CHECKING:
    from proa.engine.catalog import Catalog

# `over`: the monitor has let go of it, all of its output is written.
Condition = Literal["not-running", "next-exit", "removed", "over", "healthy", "unhealthy"]
ENDS: tuple[Condition, ...] = ("not-running", "next-exit")
OVER: tuple[Condition, ...] = ("over",)
HEALTHS: tuple[Condition, ...] = ("healthy", "unhealthy")
# So many removed auto-remove containers have their exit status kept, for clients that come back after a crash.
GONE_STATUSES = 256


class Waits:
    """The waiting of one engine; every wait is a future."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._waiting: dict[str, list[tuple[Condition, Future[ExitStatus]]]] = {}
        self._gone: dict[str, ExitStatus] = {}

    def add(self, name_or_id: str, condition: Condition) -> Future[ExitStatus]:
        """A future of when the container meets the condition; already resolved when it does so now.

        Who waits for the removal of an auto-remove container by its full id may come a little late: a client whose
        engine was killed finds the next one when that has taken over the exit already. Who waits for health gets the
        status 0, or an error when the container ends first. Raises NotFound, Conflict when it has no healthcheck.
        """
        future: Future[ExitStatus] = Future()
        if condition == "removed" and name_or_id in self._gone:
            future.set_result(self._gone[name_or_id])
            return future
        entry = self._catalog.find(name_or_id)
        with self._lock:
            found = _now(entry, condition)
            if found is not None:
                future.set_result(found)
            else:
                self._waiting.setdefault(entry.record.id, []).append((condition, future))
                future.add_done_callback(lambda f: self._forget(entry.record.id, f) if f.cancelled() else None)
        return future

    def _forget(self, id: str, future: Future[ExitStatus]) -> None:  # noqa: A002
        with self._lock:
            rest = [(c, f) for c, f in self._waiting.pop(id, []) if f is not future]
            if rest:
                self._waiting[id] = rest

    def ended(self, entry: Entry) -> None:
        """The container has ended, for good or until its restart."""
        record = entry.record
        code = record.state.exit_code
        self.resolve(record.id, ENDS, ExitStatus(status_code=code))
        if not record.state.active:
            self.resolve(record.id, HEALTHS, _ended_first(record.id, code))

    def removed(self, entry: Entry) -> None:
        """The container is gone."""
        record = entry.record
        status = ExitStatus(status_code=record.state.exit_code)
        if record.host.auto_remove:
            with self._lock:
                self._gone[record.id] = status
                if len(self._gone) > GONE_STATUSES:
                    del self._gone[next(iter(self._gone))]
        self.resolve(record.id, HEALTHS, _ended_first(record.id, status.status_code))
        self.resolve(record.id, ("removed", *ENDS), status)

    def resolve(self, id: str, conditions: Collection[Condition], status: ExitStatus) -> None:  # noqa: A002
        """Tell everyone who waits for one of the conditions."""
        with self._lock:
            waiting = self._waiting.pop(id, [])
            rest = [(c, f) for c, f in waiting if c not in conditions]
            if rest:
                self._waiting[id] = rest
        for condition, future in waiting:
            if condition in conditions and future.set_running_or_notify_cancel():
                future.set_result(status)


def _now(entry: Entry, condition: Condition) -> ExitStatus | None:
    """How a wait that begins now ends at once; None when it does not."""
    record = entry.record
    state = record.state
    if condition in HEALTHS:
        if record.config.healthcheck is None or record.config.healthcheck.test in (None, [], ["NONE"]):
            raise Conflict(
                f"container {record.name} has no healthcheck, it will never be {condition}",
                code="no-healthcheck",
                subject=record.id,
                hint="give it one with --health-cmd",
            )
        if state.running and state.health is not None and state.health.status == condition:
            return ExitStatus(status_code=0)
        if entry.removed or not (state.active or state.status == "created"):
            return _ended_first(record.id, state.exit_code)
        return None
    if entry.removed or (condition == "not-running" and not state.active):
        return ExitStatus(status_code=state.exit_code)
    return None


def _ended_first(id: str, code: int) -> ExitStatus:  # noqa: A002
    return ExitStatus(status_code=code, error=f"container {id[:12]} has ended with status {code} before that")
