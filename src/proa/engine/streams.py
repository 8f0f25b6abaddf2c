"""Streams: attach clients to a container's stdio, resize its terminal, read its log.

A client's connection is handed to the container's monitor as a descriptor: bytes never pass through the engine, and
an attached client outlives it. Before the container runs, the connection waits here for the start.
"""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path

import msgspec

from proa.engine import exits
from proa.engine.catalog import Catalog, Entry
from proa.engine.logs import LogReader
from proa.engine.runs import Runs
from proa.engine.types import LogRequest
from proa.errors import Cancelled, Conflict, Invalid, ProaError, TimedOut, Unsupported
from proa.monitor.log_drivers import layout_of
from proa.monitor.logs import log_path
from proa.monitor.protocol import Attach

MAX_WAITING = 64
REPLAY_STALL_MS = 60_000


class Streams:
    """Attach, resize and read logs."""

    def __init__(self, catalog: Catalog, runs: Runs) -> None:
        self._catalog = catalog
        self._runs = runs
        self._lock = threading.Lock()
        self._waiting: dict[str, list[tuple[Attach, int]]] = {}

    def attach(
        self,
        name_or_id: str,
        connection: int,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        logs: bool = False,
        stream: bool = True,
        detach_keys: str = "",
        early: bytes = b"",
    ) -> None:
        """Join a connected socket to a running container's streams; the socket is ours from here on.

        logs: first write what the log has, and wait for the start of a container that does not run; stream: then what
        comes. Without `logs` a container that has ended meanwhile ends the connection: see `park`.
        early: bytes the client sent ahead.
        Raises NotFound, Conflict, Invalid.
        """
        try:
            entry = self._catalog.find(name_or_id)
            record = entry.record
            if record.state.status == "paused":
                raise Conflict(
                    f"container {record.id} is paused, unpause the container before attach", code="container-paused"
                )
            attach = _attach_of(entry, stdin, stdout, stderr, detach_keys, early)
            if logs and stream and self._replay_and_join(entry, attach, connection, stdout=stdout, stderr=stderr):
                return
            if logs:
                self._replay(record.id, connection, stdout=stdout, stderr=stderr)
            if not stream:
                return
            if logs and self._keep(entry, attach, connection):
                connection = -1
            elif record.state.running:
                self._runs.monitor(entry).attach(connection, attach)
        finally:
            if connection >= 0:
                os.close(connection)

    def park(
        self,
        name_or_id: str,
        connection: int,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        detach_keys: str = "",
        early: bytes = b"",
        followed: bool = False,
    ) -> bool:
        """Keep a connected socket for the start of a container that does not run, which makes it ours.

        False when the container runs: `attach` is for that. Never blocks: the caller must be able to do it in the same
        moment in which the client learns that it may start the container. followed: as of `protocol.Attach`. Raises
        NotFound, Conflict, Invalid, and leaves the socket to the caller then.
        """
        entry = self._catalog.find(name_or_id)
        attach = _attach_of(entry, stdin, stdout, stderr, detach_keys, early)
        return self._keep(entry, msgspec.structs.replace(attach, followed=followed), connection)

    def _keep(self, entry: Entry, attach: Attach, connection: int) -> bool:
        """Remember a client for the start; False when the container runs."""
        record = entry.record
        with self._lock:  # a start says `running` first and looks for waiting clients then
            if record.state.running:
                return False
            waiting = self._waiting.setdefault(record.id, [])
            if len(waiting) >= MAX_WAITING:
                raise Conflict(f"{MAX_WAITING} clients already wait for {record.id} to start", code="too-many-attached")
            waiting.append((attach, connection))
            return True

    def _replay_and_join(self, entry: Entry, attach: Attach, connection: int, *, stdout: bool, stderr: bool) -> bool:
        """Write what the log has and join a running container just where that ends; False when it does not run."""
        if not entry.record.state.running:
            return False
        joined = False
        try:
            with self._runs.monitor(entry).attach_after(connection, attach):
                joined = True
                self._replay(entry.record.id, connection, stdout=stdout, stderr=stderr)
        except ProaError:
            if joined:
                raise
            return False  # it has ended just now
        return True

    def _replay(self, id: str, connection: int, *, stdout: bool, stderr: bool) -> None:  # noqa: A002
        """Write what the log has to the client, who may be slow but not dead."""
        reader = self.logs(id, LogRequest(stdout=stdout, stderr=stderr))
        tty = self._catalog.find(id).record.config.tty
        writable = select.poll()
        writable.register(connection, select.POLLOUT)
        try:
            while not reader.finished:
                for e in reader.read():
                    head = b"" if tty else bytes((e.stream, 0, 0, 0)) + len(e.data).to_bytes(4, "big")
                    data = memoryview(head + e.data)
                    while data:
                        if not writable.poll(REPLAY_STALL_MS):
                            raise TimedOut(f"the client took no log output for {REPLAY_STALL_MS // 1000} s")
                        try:
                            data = data[os.write(connection, data) :]
                        except BlockingIOError:
                            continue
        except (BrokenPipeError, ConnectionResetError):
            raise Cancelled("the client went away") from None
        finally:
            reader.close()

    def take_waiting(self, id: str) -> list[tuple[Attach, int]]:  # noqa: A002
        """The clients that wait for the container's start; they are the caller's now."""
        with self._lock:
            return self._waiting.pop(id, [])

    def join_waiting(self, entry: Entry) -> None:
        """Join the clients that came while the container was being started: it runs now."""
        for attach, fd in self.take_waiting(entry.record.id):
            try:
                self._runs.monitor(entry).attach(fd, attach)
            except ProaError:
                pass  # it has ended already: the closed connection says so
            finally:
                os.close(fd)

    def forget(self, id: str) -> None:  # noqa: A002
        """Close the connections that wait for a start that will not come."""
        for _, fd in self.take_waiting(id):
            os.close(fd)

    def resize(self, name_or_id: str, height: int, width: int) -> None:
        """Set the terminal's size in characters. Raises NotFound, Conflict when the container does not run."""
        entry = self._catalog.find(name_or_id)
        self._runs.monitor(entry).resize(height, width)

    def logs(self, name_or_id: str, request: LogRequest) -> LogReader:
        """A reader of the container's log. Raises NotFound, Unsupported for a log driver that keeps none."""
        entry = self._catalog.find(name_or_id)
        config = entry.record.host.log_config
        layout = layout_of(config.type or "json-file")
        if not layout or config.config.get("cache-disabled", "").lower() in ("1", "t", "true"):
            raise Unsupported("configured logging driver does not support reading", code="log-driver")
        if not (request.stdout or request.stderr):
            raise Invalid("Bad parameters: you must choose at least one stream", code="streams-none")
        directory = self._catalog.path(entry)

        def ended() -> bool:
            return not entry.record.state.running or (directory / exits.EXIT).exists()

        path = Path(log_path(str(directory), entry.record.id, layout))
        return LogReader(path, request, ended, "json" if layout == "json" else "cri")


def _attach_of(entry: Entry, stdin: bool, stdout: bool, stderr: bool, detach_keys: str, early: bytes) -> Attach:
    return Attach(
        streams=tuple(s for s, on in (("stdout", stdout), ("stderr", stderr)) if on),
        stdin=stdin and entry.record.config.open_stdin,
        detach_keys=parse_detach_keys(detach_keys),
        early=early,
    )


def parse_detach_keys(text: str) -> list[int] | None:
    """`ctrl-p,ctrl-q` to bytes; empty text means the default (None). Raises Invalid."""
    if not text:
        return None
    out = []
    for key in text.split(","):
        if len(key) == 1:
            out.append(ord(key))
        elif key.startswith("ctrl-") and len(key) == 6 and (0x40 <= ord(key[5].upper()) <= 0x5F):
            out.append(ord(key[5].upper()) & 0x1F)
        else:
            raise Invalid(f"Invalid detach keys ({text[:80]}) provided", code="detach-keys")
    return out
