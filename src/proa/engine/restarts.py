"""Restarts: whether and when a container that ended is started again (Docker's restart policies).

    no               never
    on-failure[:n]   when it ended with another status than 0, at most n times
    always           whatever it ended with, and at the machine's boot even when somebody had stopped it
    unless-stopped   as always, but not once somebody has stopped it

The engine does it, so it stays as long as a container runs or waits for its restart. Containers that end while no
engine runs are found by the next one.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from proa.engine.catalog import Entry, copy_record
from proa.engine.clock import parse_rfc3339
from proa.engine.types import NEVER, Container, RestartPolicy, State
from proa.errors import Invalid, NotModified, ProaError
from proa.storage.records import write_bytes

if TYPE_CHECKING:
    from proa.engine.engine import Engine

log = logging.getLogger(__name__)

# Docker's: twice as long each time, from the start again once the container ran for a while.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 60.0
LONG_ENOUGH_S = 10.0
BOOT_PATIENCE_S = 60.0
POLICIES = ("no", "always", "on-failure", "unless-stopped")
# In the run directory, which a boot empties: there once an engine has started what the boot shall start.
BOOTED = "booted"


def check_policy(policy: RestartPolicy, *, auto_remove: bool) -> None:
    """Raise Invalid with Docker's words for a policy that cannot be."""
    name = policy.name or "no"
    if name not in POLICIES:
        raise Invalid(
            f"invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or "
            "'unless-stopped'",
            code="restart-policy",
        )
    reason = ""
    if policy.maximum_retry_count < 0:
        reason = "cannot be negative"
    elif policy.maximum_retry_count and name != "on-failure":
        reason = "can only be used with 'on-failure'"
    if reason:
        raise Invalid(f"invalid restart policy: maximum retry count {reason}", code="restart-policy")
    if name != "no" and auto_remove:
        raise Invalid("can't create 'AutoRemove' container with restart policy", code="restart-policy")


def shall_restart(policy: RestartPolicy, state: State) -> bool:
    """Whether a container that has just ended so is started again."""
    if state.manually_stopped:
        return False
    if policy.name == "on-failure":
        left = not policy.maximum_retry_count or state.restart_count < policy.maximum_retry_count
        return left and state.exit_code != 0
    return policy.name in ("always", "unless-stopped")


def next_pause(pause_s: float, ran_s: float) -> float:
    """Seconds before the next start, after one that was preceded by `pause_s` (0.0 for none) and ran for `ran_s`."""
    if pause_s <= 0.0 or ran_s >= LONG_ENOUGH_S:
        return FIRST_PAUSE_S
    return min(pause_s * 2, LONGEST_PAUSE_S)


class Restarts:
    """Starts again what its policy says."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open = False

    def after_end(self, entry: Entry) -> bool:
        """Decide what becomes of a container that ended; its state says how. The caller holds its lock.

        True when it will be started again: then it is `restarting`, and the record has to be saved.
        """
        record = entry.record
        state = record.state
        if entry.restarting or not shall_restart(record.host.restart_policy, state):
            return False
        ran_s = parse_rfc3339(state.finished_at) - parse_rfc3339(state.started_at)
        entry.pause_s = next_pause(entry.pause_s, ran_s)
        state.restart_count += 1
        state.status = "restarting"
        if self._open:
            self._plan(entry, entry.pause_s)
        return True

    def after_failure(self, entry: Entry) -> bool:
        """The same for one whose restart failed; the error is in its state."""
        entry.record.state.finished_at = entry.record.state.started_at
        return self.after_end(entry)

    def cancel(self, entry: Entry) -> bool:
        """Leave a container that waits for its restart as it is; the caller holds its lock. False when it does not."""
        state = entry.record.state
        if state.status != "restarting":
            return False
        if entry.pending is not None:
            entry.pending.cancel()
            entry.pending = None
        state.status = "exited"
        return True

    def resume(self) -> None:
        """From now on restart: what an earlier engine left waiting, and at a boot what shall run."""
        self._open = True
        for entry in self._engine.catalog:
            with entry.lock:
                if entry.record.state.status == "restarting" and entry.pending is None:
                    self._plan(entry, 0.0)
        marker = self._engine.run / BOOTED
        if not marker.exists():
            self.boot()
            write_bytes(marker, b"")

    def boot(self) -> list[str]:
        """Start what shall run after a boot and does not; returns the ids. The starts themselves come a little later.

        Containers that were never started are nobody's wish yet.
        """
        wanted = []
        for entry in sorted(self._engine.catalog, key=lambda e: e.record.created):
            record = entry.record
            if not _starts_at_boot(record):
                continue
            with entry.lock:
                if entry.removed or record.state.active:
                    continue
                record.state.status = "restarting"
                record.state.restart_count = 0
                record.state.manually_stopped = False
                entry.pause_s = 0.0
                self._engine.catalog.save(entry)
                self._plan(entry, 0.0)
                wanted.append(record.id)
        return wanted

    def boot_and_wait(self) -> list[Container]:
        """Do so, and give the records of all that a boot starts once each start has been tried, or a minute is over."""
        self.boot()
        wanted = [e for e in self._engine.catalog if _starts_at_boot(e.record)]
        deadline = time.monotonic() + BOOT_PATIENCE_S
        for entry in wanted:
            while entry.record.state.status == "restarting" and not entry.pause_s and time.monotonic() < deadline:
                time.sleep(0.02)
        return [copy_record(entry.record) for entry in wanted]

    def _plan(self, entry: Entry, pause_s: float) -> None:
        entry.pending = self._engine.agenda.later(pause_s, partial(self._restart, entry))

    def _restart(self, entry: Entry) -> None:
        try:
            self._engine.lifecycle.start_again(entry)
        except NotModified:
            pass
        except ProaError as error:
            log.warning("restarting %s failed: %s", entry.record.id, error)


def _starts_at_boot(record: Container) -> bool:
    policy, state = record.host.restart_policy.name, record.state
    if state.started_at == NEVER:
        return False
    return policy == "always" or (policy == "unless-stopped" and not state.manually_stopped)
