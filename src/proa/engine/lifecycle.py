"""Lifecycle: start, stop, kill, pause and wait for containers.

Who knows that a container ended? Its monitor writes an exit record, then says so on the connection that `Watcher`
listens to. Whoever gets the container's lock first takes the news over into the record (`_settle`, idempotent):
usually the watcher, or a thread that just killed the container and holds the lock.
"""

from __future__ import annotations

import logging
import signal as signals
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from proa.engine import exits
from proa.engine.adoption import Joined
from proa.engine.catalog import Entry
from proa.engine.clock import now, parse_rfc3339
from proa.engine.leftovers import cgroup_exists, cgroup_path, end_cgroup
from proa.engine.processes import usage_sample
from proa.engine.ps import columns_of, process_rows
from proa.engine.runs import Run
from proa.engine.secrets import take_back
from proa.engine.signal_names import parse_signal
from proa.engine.startup import start_request
from proa.engine.types import ExitStatus, State
from proa.engine.waits import OVER, Condition, Waits
from proa.errors import Conflict, Internal, NotFound, NotModified, ProaError, TimedOut, Unavailable
from proa.monitor.client import MonitorConnection

if TYPE_CHECKING:
    from proa.engine.engine import Engine

log = logging.getLogger(__name__)

DEFAULT_STOP_S = 10
# How long a container may take to die of SIGKILL before we say so: a process in uninterruptible sleep.
KILL_WAIT_S = 30
# How long a monitor may take to answer before a container that shall die is ended without it.
MONITOR_PATIENCE_S = 5.0


class Lifecycle:
    """Change what a container does. All methods take a name, an id or a unique id prefix."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._catalog = engine.catalog
        self._runs = engine.runs
        self._waits = Waits(engine.catalog)

    def start(self, name_or_id: str) -> None:
        """Start a container and return once its program runs.

        Raises NotModified when it runs already, Conflict when it is paused or being removed, and what the runtime
        met: NotFound `command-not-found`, Denied `command-not-executable`, Invalid …
        """
        entry = self._catalog.find(name_or_id)
        with entry.lock:
            record = entry.record
            if entry.removed or record.state.status == "removing":
                raise Conflict(f"container {record.id} is marked for removal and cannot be started", code="removing")
            if record.state.status == "paused":
                raise Conflict("cannot start a paused container, try unpause instead", code="container-paused")
            if record.state.active:
                raise NotModified(f"container {record.id} is already running", code="already-running")
            entry.pause_s = 0.0
            record.state.restart_count, record.state.manually_stopped = 0, False
            try:
                self._start(entry)
            except ProaError as error:
                self._start_failed(entry, error)
                raise

    def start_again(self, entry: Entry) -> None:
        """Start a container whose restart is due. Raises NotModified when nothing is due any more, and as `start`."""
        with entry.lock:
            if entry.removed or entry.record.state.status != "restarting":
                raise NotModified(f"container {entry.record.id} waits for no restart", code="not-restarting")
            entry.pending = None
            try:
                self._start(entry)
            except ProaError as error:
                state = entry.record.state
                state.exit_code, state.error = exits.start_failure_status(error), error.message
                if not self._engine.restarts.after_failure(entry):
                    state.status = "exited"
                    self._waits.ended(entry)
                self._catalog.save(entry)
                raise

    def _start(self, entry: Entry) -> None:
        engine, record = self._engine, entry.record
        exits.forget(self._catalog.path(entry))
        cgroup = cgroup_path(engine.id, record.id, record.host.cgroup_parent)
        engine.volumes.join(record.id)
        try:
            joined = engine.endpoints.join(entry)
        except BaseException:
            engine.volumes.leave(record.id)
            raise
        try:
            with start_request(engine, entry, joined) as (request, fds):
                connection = self._start_monitor(cgroup, request, fds)
        except BaseException:
            engine.endpoints.leave(entry)
            engine.volumes.leave(record.id)
            end_cgroup(cgroup)  # when what made it died, nobody has removed it
            engine.socket_path(record.id).unlink(missing_ok=True)
            raise
        finally:
            joined.close()
        record.state = State(
            status="running",
            pid=connection.started["pid"],
            started_at=connection.started["started_at"],
            restart_count=record.state.restart_count,
            health=record.state.health,
        )
        run = self._runs.add(entry, connection)
        engine.health.begin(entry)
        engine.ooms.watch(entry, started=True)
        self._catalog.save(entry)
        engine.containers.announce(entry, "start")
        engine.streams.join_waiting(entry)
        engine.watcher.add(connection, lambda event: self._heard(entry, run, event))

    def _start_monitor(
        self, cgroup: str, request: Mapping[str, Any], fds: Mapping[str, int | Sequence[int]]
    ) -> MonitorConnection:
        """Once more when the nursery died, or a child of it, before it made anything of the container."""
        try:
            return self._engine.nursery.start_container(request, fds)
        except (Unavailable, TimedOut) as error:
            if isinstance(error, TimedOut):
                self._engine.drop_nursery()
            if cgroup_exists(cgroup):
                error.hint = "whether its program ran is not known; start it again"
                raise
            log.warning("starting %s again: %s", request["id"], error.message)
        return self._engine.nursery.start_container(request, fds)

    def _start_failed(self, entry: Entry, error: ProaError) -> None:
        record = entry.record
        code = exits.start_failure_status(error)
        record.state.exit_code, record.state.error = code, error.message
        self._engine.streams.forget(record.id)
        if record.host.auto_remove:
            self._engine.containers.remove_entry(entry, volumes=True)
        else:
            self._catalog.save(entry)
            self._waits.ended(entry)

    def adopt(self, entry: Entry, joined: Joined) -> None:
        """Watch a container that an earlier engine started. Its record says running already."""
        run = self._runs.add(entry, joined.connection)
        if joined.state is not None:
            self._take_state(entry, run, joined.state)
        try:
            self._engine.volumes.join(entry.record.id)
        except ProaError as error:
            log.warning("a volume of %s is not where it was: %s", entry.record.id, error)
        self._engine.health.resume(entry)
        self._engine.ooms.watch(entry)
        for event in joined.early:
            self._heard(entry, run, event)
        self._engine.watcher.add(joined.connection, lambda event: self._heard(entry, run, event))

    def _take_state(self, entry: Entry, run: Run, found: dict[str, Any]) -> None:
        """What a monitor says that an earlier engine's container does; the caller holds the lock."""
        if run.settled or entry.removed:
            return
        try:
            # Paused is what both call so: else an engine was killed during a pause, an unpause or a commit.
            if found["status"] == "paused" and entry.record.state.status != "paused":
                run.connection.resume()
            elif found["status"] != "paused" and entry.record.state.status == "paused":
                entry.record.state.status = "running"
            self._engine.execs.adopt(entry.record.id, found["execs"])
        except ProaError as error:
            log.warning("the state of %s is not known: %s", entry.record.id, error)

    def _take_late_state(self, entry: Entry, run: Run, found: dict[str, Any]) -> None:
        with entry.lock:
            self._take_state(entry, run, found)

    def take_over_exit(self, entry: Entry) -> None:
        """Take over the exit of a container whose monitor ended while no engine ran; the caller holds the lock."""
        self._settle_found(entry)

    def _heard(self, entry: Entry, run: Run, event: dict[str, Any] | None) -> None:
        """On the watcher's thread: must not block."""
        if event is None:
            self._waits.resolve(entry.record.id, OVER, ExitStatus(status_code=0))
        kind = event["event"] if event else None
        if kind == "exec-exit" and event:
            self._engine.execs.ended(entry, event)
            return
        if kind == "detached":
            self._engine.containers.announce(entry, "detach")
            return
        if kind == "state" and event:
            self._engine.agenda.soon(self._take_late_state, entry, run, event)
            return
        if kind == "exit" and event:
            run.exit = event
        elif kind is not None or run.ended.is_set():
            return
        run.ended.set()
        # Of a dead monitor's container there is more to end than this thread may wait for.
        if run.exit and entry.lock.acquire(blocking=False):
            try:
                self._settle(entry, run)
            finally:
                entry.lock.release()
        else:
            self._engine.agenda.soon(self._settle_later, entry, run)

    def _settle_later(self, entry: Entry, run: Run) -> None:
        with entry.lock:
            self._settle(entry, run)

    def _settle(self, entry: Entry, run: Run) -> None:
        """Take the exit over into the record, once; the caller holds the lock."""
        if run.settled or entry.removed:
            return
        run.settled = True
        self._settle_found(entry, run.exit)

    def _settle_found(self, entry: Entry, found: dict[str, Any] | None = None) -> None:
        engine, record = self._engine, entry.record
        found = found or exits.read(self._catalog.path(entry)) or exits.lost(self._catalog.path(entry))
        state = record.state
        record.state = State(
            status="exited",
            exit_code=int(found["status"]),
            oom_killed=bool(found.get("oom")),
            error=str(found.get("error", "")),
            started_at=state.started_at,
            finished_at=str(found.get("time") or now()),
            restart_count=state.restart_count,
            manually_stopped=state.manually_stopped,
            health=state.health,
        )
        self._runs.drop(entry)
        engine.health.end(entry)
        told = engine.ooms.forget(entry)
        engine.endpoints.leave(entry)
        engine.volumes.leave(record.id)
        take_back(record.id, engine.run)
        engine.execs.forget(record.id)
        engine.restarts.after_end(entry)
        removing = record.host.auto_remove and not entry.restarting
        if not removing:  # else the record goes in a moment; one that says "running" still is dealt with by `reconcile`
            self._catalog.save(entry)
        if record.state.oom_killed and not told:
            engine.containers.announce(entry, "oom")
        ran_s = parse_rfc3339(record.state.finished_at) - parse_rfc3339(record.state.started_at)
        attributes = {"execDuration": str(max(int(ran_s), 0)), "exitCode": str(record.state.exit_code)}
        engine.containers.announce(entry, "die", **attributes)
        self._waits.ended(entry)
        if removing:
            engine.containers.remove_entry(entry, volumes=True)

    def kill(self, name_or_id: str, signal: str = "KILL", *, for_good: bool = True) -> None:
        """Send a signal to the container's first process. Raises Conflict when it does not run, Invalid.

        for_good: SIGKILL and the container's stop signal also end what its restart policy would do.
        """
        entry = self._catalog.find(name_or_id)
        number = parse_signal(signal)
        if for_good and number in (signals.SIGKILL, _stop_signal(entry)) and self._stop_restarts(entry):
            return
        if not entry.record.state.running:
            raise Conflict(
                f"Cannot kill container: {name_or_id}: Container {entry.record.id} is not running", code="not-running"
            )
        if number == signals.SIGKILL and entry.record.state.status == "paused":
            self.unpause(entry.record.id)
        try:
            self._signal(entry, number)
        except (Unavailable, NotFound):
            # It ended by itself in between, and its monitor with it.
            raise Conflict(
                f"Cannot kill container: {name_or_id}: Container {entry.record.id} is not running", code="not-running"
            ) from None
        self._engine.containers.announce(entry, "kill", signal=str(number))

    def _signal(self, entry: Entry, number: int) -> None:
        """Signal the first process, past a monitor that does not answer."""
        try:
            self._runs.monitor(entry).kill(number, timeout_s=MONITOR_PATIENCE_S)
        except TimedOut:
            exits.signal_init(self._catalog.path(entry), number)
            if number == signals.SIGKILL:  # and nobody would tell that it ended
                with entry.lock:
                    self.kill_and_wait(entry)

    def kill_and_wait(self, entry: Entry) -> None:
        """Kill every process and take over the exit; the caller holds the lock. Raises Internal if one lives on."""
        run = self._runs.find(entry)
        if run is None:
            return
        try:
            # SIGKILL thaws, too.
            run.connection.kill(signals.SIGKILL, all_processes=True, timeout_s=MONITOR_PATIENCE_S)
        except TimedOut:
            log.warning("the monitor of %s does not answer: ending it, and with it the container", entry.record.id)
            exits.end_monitor(self._catalog.path(entry))
        except ProaError:
            pass  # it may have ended by itself in between
        if not run.ended.wait(KILL_WAIT_S):
            raise Internal(
                f"container {entry.record.id} did not die of SIGKILL within {KILL_WAIT_S} s", code="unkillable"
            )
        self._settle(entry, run)

    def stop(self, name_or_id: str, *, timeout: int | None = None, signal: str = "") -> None:
        """Ask the container to end, and kill it when it has not after `timeout` seconds (-1: wait for ever).

        Raises NotModified when it does not run.
        """
        entry = self._catalog.find(name_or_id)
        record = entry.record
        if self._stop_restarts(entry):
            return
        run = self._runs.find(entry)
        if run is None or not record.state.running:
            raise NotModified(f"container {record.id} is not running", code="not-running")
        if timeout is None:
            timeout = record.config.stop_timeout if record.config.stop_timeout is not None else DEFAULT_STOP_S
        number = parse_signal(signal) if signal else _stop_signal(entry)
        if record.state.status == "paused":
            self.unpause(record.id)
        try:
            self._signal(entry, number)
            self._engine.containers.announce(entry, "kill", signal=str(number))
        except ProaError:
            if not run.ended.is_set():
                raise
        if not run.ended.wait(None if timeout < 0 else timeout):
            with entry.lock:
                if not run.settled:
                    self._engine.containers.announce(entry, "kill", signal=str(int(signals.SIGKILL)))
                    self.kill_and_wait(entry)
        with entry.lock:
            self._settle(entry, run)
        self._engine.containers.announce(entry, "stop")

    def _stop_restarts(self, entry: Entry) -> bool:
        """Note that a user stops the container; True when it only waited for its restart, and so has stopped."""
        with entry.lock:
            state = entry.record.state
            if not state.active or entry.removed:
                return False
            state.manually_stopped = not entry.restarting
            waited = self._engine.restarts.cancel(entry)
            if waited or entry.record.host.restart_policy.name not in ("", "no"):
                self._catalog.save(entry)
        if waited:
            self._waits.ended(entry)
            self._engine.containers.announce(entry, "stop")
        return waited

    def restart(self, name_or_id: str, *, timeout: int | None = None, signal: str = "") -> None:
        """Stop, if it runs, and start."""
        entry = self._catalog.find(name_or_id)
        entry.restarting = True  # an auto-remove container stays
        try:
            try:
                self.stop(entry.record.id, timeout=timeout, signal=signal)
            except NotModified:
                pass
            self.start(entry.record.id)
        finally:
            entry.restarting = False
        self._engine.containers.announce(entry, "restart")

    def pause(self, name_or_id: str, *, recorded: bool = True) -> None:
        """Freeze every process. Raises Conflict.

        recorded: whether it is meant to last; the next engine thaws what was frozen for a moment only.
        """
        entry = self._catalog.find(name_or_id)
        with entry.lock:
            if entry.record.state.status == "paused":
                raise Conflict(f"Container {entry.record.id} is already paused", code="already-paused")
            self._runs.monitor(entry).pause()
            entry.record.state.status = "paused"
            self._engine.health.suspend(entry)
            if recorded:
                self._catalog.save(entry)
        self._engine.containers.announce(entry, "pause")

    def unpause(self, name_or_id: str) -> None:
        """Thaw every process. Raises Conflict."""
        entry = self._catalog.find(name_or_id)
        with entry.lock:
            if entry.record.state.status != "paused":
                raise Conflict(f"Container {entry.record.id} is not paused", code="not-paused")
            self._runs.monitor(entry).resume()
            entry.record.state.status = "running"
            self._catalog.save(entry)
            self._engine.health.resume(entry)
        self._engine.containers.announce(entry, "unpause")

    def top(self, name_or_id: str, ps_args: str = "-ef") -> tuple[list[str], list[list[str]]]:
        """Titles and rows of the container's processes, as `ps` with these options shows them.

        Raises Conflict when it does not run, Invalid for options that are not understood.
        """
        entry = self._catalog.find(name_or_id)
        self._runs.monitor(entry)
        columns = columns_of(ps_args)
        record = entry.record
        path = cgroup_path(self._engine.id, record.id, record.host.cgroup_parent)
        return [title for title, _ in columns], process_rows(record.state.pid, columns, path)

    def stats(self, name_or_id: str) -> dict[str, Any]:
        """What the container uses now (see `processes.usage_sample`); empty when it does not run."""
        entry = self._catalog.find(name_or_id)
        if not entry.record.state.running:
            return {}
        return usage_sample(entry.record.state.pid, own_cgroup=not self._engine.abilities.no_limits)

    def wait(self, name_or_id: str, condition: Condition = "not-running") -> Future[ExitStatus]:
        """A future of how the container ends or gets healthy (see `waits.Waits.add`). Raises NotFound, Conflict."""
        return self._waits.add(name_or_id, condition)

    def removed(self, entry: Entry) -> None:
        """Tell everyone who waits that the container is gone."""
        self._waits.removed(entry)

    def health_changed(self, entry: Entry, status: Condition) -> None:
        """Tell everyone who waits for it that the container is healthy, or unhealthy."""
        self._waits.resolve(entry.record.id, (status,), ExitStatus(status_code=0))


def _stop_signal(entry: Entry) -> int:
    return parse_signal(entry.record.config.stop_signal or "TERM")
