"""Execs: additional processes in running containers."""

from __future__ import annotations

import builtins
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from proa.engine.catalog import Entry
from proa.engine.exec_starts import ExecStarts, Starting
from proa.engine.names import new_id
from proa.engine.signal_names import parse_signal
from proa.engine.specgen import exec_process
from proa.engine.streams import parse_detach_keys
from proa.engine.types import Container, Exec, ExecRequest
from proa.errors import Conflict, Invalid, NotFound, ProaError
from proa.monitor.protocol import Attach
from proa.monitor.protocol import ExecRequest as Order

if TYPE_CHECKING:
    from proa.engine.engine import Engine

# Execs that were created and never started, or have ended: kept so that clients can ask, but not for ever.
MAX_KEPT = 4096
KILLED = 137
GONE_WAIT_S = 2.0


class Execs:
    """The execs of one engine, in memory: they end with their container at the latest."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._execs: dict[str, Exec] = {}
        self._starts = ExecStarts(engine)

    def create(self, container: str, request: ExecRequest) -> str:
        """Prepare an exec and return its id. Raises NotFound, Conflict when the container does not run, Invalid."""
        id = self.prepare(container, request)  # noqa: A001
        self._announce_created(self._find(id))
        return id

    def prepare(self, container: str, request: ExecRequest) -> str:
        """As `create`, but nobody is told yet; for an event loop, as it waits for nothing but dictionaries."""
        entry = self._engine.catalog.find(container)
        record = entry.record
        if not request.cmd:
            raise Invalid("No exec command specified", code="no-command")
        _check_takes_execs(record)
        parse_detach_keys(request.detach_keys)
        exec_ = Exec(id=new_id(), container=record.id, request=request)
        with self._lock:
            if len(self._execs) >= MAX_KEPT:
                for old in [e.id for e in self._execs.values() if not e.running][: MAX_KEPT // 4]:
                    del self._execs[old]
            self._execs[exec_.id] = exec_
        return exec_.id

    def _announce_created(self, exec_: Exec) -> None:
        entry = self._engine.catalog.find(exec_.container)
        command = " ".join(exec_.request.cmd or [])
        self._engine.containers.announce(entry, f"exec_create: {command}", execID=exec_.id)

    def start(
        self,
        exec_id: str,
        connection: int | None,
        *,
        detach: bool,
        tty: bool,
        early: bytes = b"",
        console_size: tuple[int, int] | None = None,
        tells_end: bool = False,
        prepared: bool = False,
    ) -> None:
        """Run the process; returns once it runs. `connection`, a connected socket, is ours from here on.

        tells_end: write the exit status to it at last (`monitor.protocol.Attach`).
        prepared:  the exec has not been announced yet (`prepare`).
        Raises NotFound `command-not-found`, Denied `command-not-executable`, Conflict when started before.
        """
        attached = connection is not None and not detach
        how = (tty, console_size, early, tells_end)
        self.finish(self._begin(exec_id, connection, *how, attached=attached, prepared=prepared))

    def start_at_once(self, exec_id: str, connection: int, early: bytes) -> Starting | None:
        """As `start` of what was prepared, telling its end, for an event loop; None when it would have to wait.

        `connection` is ours otherwise, and `finish` has to follow.
        """
        run = self._engine.runs.find(self._engine.catalog.find(self._find(exec_id).container))
        if run is None or not self._starts.ready(run):
            return None
        return self._begin(exec_id, connection, False, None, early, True, attached=True, prepared=True)

    def _begin(
        self,
        exec_id: str,
        connection: int | None,
        tty: bool,
        console_size: tuple[int, int] | None,
        early: bytes,
        tells_end: bool,
        *,
        attached: bool,
        prepared: bool,
    ) -> Starting:
        try:
            exec_ = self._find(exec_id)
            entry = self._engine.catalog.find(exec_.container)
            _check_takes_execs(entry.record)
            run = self._engine.runs.current(entry)
            with self._lock:
                if exec_.running or exec_.exit_code is not None:
                    raise Conflict(f"Exec command {exec_.id} is already running", code="exec-started")
                exec_.running = True
            request = exec_.request
            attach = None
            if attached:
                wanted = (("stdout", request.attach_stdout), ("stderr", request.attach_stderr))
                attach = Attach(
                    streams=tuple(stream for stream, on in wanted if on),
                    stdin=request.attach_stdin,
                    detach_keys=parse_detach_keys(request.detach_keys),
                    early=early,
                    tells_end=tells_end,
                    ends_exec=request.end_with_client,
                )
            with self._failing(exec_):
                process = exec_process(entry.record, request, console_size)
                stdin = request.attach_stdin and attached
                order = Order.of(exec_.id, process, tty=tty, stdin=stdin, attach=attach)
                starting = Starting(exec_, entry, run, order, connection)
                self._starts.send(starting)
        except BaseException:
            if connection is not None:
                os.close(connection)
            raise
        if prepared:
            self._announce_created(exec_)
        command = " ".join(request.cmd or [])
        self._engine.containers.announce(entry, f"exec_start: {command}", execID=exec_.id)
        return starting

    def finish(self, starting: Starting, *, wait: bool = True) -> bool:
        """Whether the process runs; False, when nothing is waited for, while that is not known. Raises as `start`."""
        known = True
        try:
            with self._failing(starting.exec):
                known = self._starts.conclude(starting, wait=wait)
        finally:
            if known and starting.connection is not None:
                os.close(starting.connection)
        return known

    @contextmanager
    def _failing(self, exec_: Exec) -> Iterator[None]:
        """A start that fails is the exec's end."""
        try:
            yield
        except ProaError as error:
            exec_.running = False
            exec_.exit_code = {"command-not-found": 127, "command-not-executable": 126}.get(error.code, 128)
            raise

    def close(self) -> None:
        """Let go of what is kept for the next exec; what runs goes on."""
        self._starts.close()

    def get(self, exec_id: str) -> Exec:
        """The exec as it is now: asked of the monitor while it runs, so that an end is never reported late."""
        exec_ = self._find(exec_id)
        self._starts.settle(exec_)
        if exec_.running:
            status = self._ask(exec_)
            if status is not None:
                self._end(exec_, status)
        return msgspec.structs.replace(exec_)

    def _ask(self, exec_: Exec) -> int | None:
        """The exit status as the monitor has it; of a monitor that is gone, what becomes of every exec without one."""
        try:
            entry = self._engine.catalog.find(exec_.container)
            run = self._engine.runs.find(entry)
            state = self._engine.runs.monitor(entry).exec_state(exec_.id)
        except ProaError as error:
            if error.code != "monitor-gone":
                return KILLED if error.code in ("not-running", "container-not-found") else None
            # What it said last about its execs has been heard when its end has.
            return KILLED if run is None or run.ended.wait(GONE_WAIT_S) else None
        status = state.get("status")
        return None if status is None else int(status)

    def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the exec's terminal size in characters. Raises NotFound, Conflict."""
        exec_ = self._find(exec_id)
        self._starts.settle(exec_)
        entry = self._engine.catalog.find(exec_.container)
        self._engine.runs.monitor(entry).resize(height, width, exec_.id)

    def list(self, container: str) -> builtins.list[Exec]:
        """The execs of a container that are remembered: running, ended, and those never started. Raises NotFound."""
        id = self._engine.catalog.find(container).record.id  # noqa: A001
        with self._lock:
            known = [e.id for e in self._execs.values() if e.container == id]
        return [self.get(exec_id) for exec_id in known]

    def kill(self, exec_id: str, signal: str = "KILL") -> None:
        """Send a signal to an exec's process. Raises NotFound, Conflict when it does not run, Invalid."""
        number = parse_signal(signal)
        exec_ = self.get(exec_id)
        if not exec_.running:
            raise Conflict(f"Exec {exec_.id} is not running", code="not-running", subject=exec_.id)
        entry = self._engine.catalog.find(exec_.container)
        self._engine.runs.monitor(entry).kill(number, exec_id=exec_.id)

    def adopt(self, container: str, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what an earlier engine started, as the monitor has it; what was asked for is not known any more."""
        with self._lock:
            for id, state in states.items():  # noqa: A001
                status = state.get("status")
                self._execs[id] = Exec(
                    id=id,
                    container=container,
                    request=ExecRequest(),
                    running=status is None,
                    exit_code=None if status is None else int(status),
                    pid=int(state.get("pid", 0)),
                )

    def of(self, container: str) -> builtins.list[str]:
        """Ids of the execs that run in a container."""
        with self._lock:
            return [e.id for e in self._execs.values() if e.container == container and e.running]

    def discard(self, exec_id: str) -> None:
        """Forget an exec nobody else knows of."""
        with self._lock:
            self._execs.pop(exec_id, None)

    def ended(self, entry: Entry, event: dict[str, Any]) -> None:
        """A monitor or a launcher says that an exec ended; on the watcher's thread: must not block."""
        exec_ = self._execs.get(str(event.get("exec")))
        if exec_ is not None:
            self._end(exec_, int(event["status"]))
            self._engine.containers.announce(entry, "exec_die", execID=exec_.id, exitCode=str(exec_.exit_code))
        self._engine.health.exec_ended(event)

    def forget(self, container: str) -> None:
        """The container ended, and its execs with it."""
        with self._lock:
            gone = [e for e in self._execs.values() if e.container == container and (e.running or e.exit_code is None)]
        for exec_ in gone:
            self._end(exec_, KILLED)

    @staticmethod
    def _end(exec_: Exec, status: int) -> None:
        if exec_.exit_code is None:
            exec_.exit_code = status
        exec_.running = False

    def _find(self, exec_id: str) -> Exec:
        with self._lock:
            found = self._execs.get(exec_id)
            if found is None and len(exec_id) >= 4:
                matches = [e for i, e in self._execs.items() if i.startswith(exec_id)]
                found = matches[0] if len(matches) == 1 else None
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id}", code="exec-not-found", subject=exec_id)
        return found


def _check_takes_execs(record: Container) -> None:
    """Raises Conflict when the container does not run, or is paused."""
    if record.state.status == "paused":
        raise Conflict(f"Container {record.id} is paused, unpause the container before exec", code="container-paused")
    if record.state.status == "restarting":
        raise Conflict(
            f"Container {record.id} is restarting, wait until the container is running", code="container-restarting"
        )
    if not record.state.running:
        raise Conflict(f"Container {record.id} is not running", code="not-running", subject=record.id)
