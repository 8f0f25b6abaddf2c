"""Events: tell whoever listens what happened, and remember it.

The last of it is in memory, more of it in two files of one line an event, which the next engine reads, too:

    events/current.jsonl    appended to; when it is full it becomes
    events/before.jsonl     and the one before that is forgotten

Execs are not written: a healthcheck makes three events a probe, which would soon push out everything else.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from proa.engine.types import Event

log = logging.getLogger(__name__)

# Docker keeps 256 for replay; a test run with compose makes more, and 1,024 small records are under half a MiB.
REMEMBERED = 1024
# Some 8,000 events each; a line is written by one call, so a killed engine leaves whole ones. It is not synced: what
# an event tells of is durable by itself, and a sync for each would cost more than what it tells of.
FILE_BYTES = 2 << 20
CURRENT, BEFORE = "current.jsonl", "before.jsonl"

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


class Events:
    """A bus with a memory, on disk too if it is given a directory. Sinks are called on the publishing thread."""

    def __init__(self, directory: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._recent: deque[Event] = deque(maxlen=REMEMBERED)
        self._sinks: dict[int, Callable[[Event], None]] = {}
        self._next = 0
        self._directory = directory
        self._begun_ns = time.time_ns()  # what happened before is in the files only
        self._latest_ns = 0
        self._fd = -1
        self._size = 0

    def publish(self, type: str, action: str, id: str, attributes: dict[str, str] | None = None) -> Event:  # noqa: A002
        """Record an event and hand it to every sink."""
        with self._lock:
            # One after the other, also when the clock is set back: a reader tells by it what it has seen.
            self._latest_ns = max(time.time_ns(), self._latest_ns + 1)
            event = Event(type=type, action=action, id=id, attributes=attributes or {}, time_nano=self._latest_ns)
            self._recent.append(event)
            if self._directory is not None and not action.startswith("exec_"):
                self._write(event, self._directory)
            sinks = list(self._sinks.values())
        for sink in sinks:
            sink(event)
        return event

    @property
    def latest_ns(self) -> int:
        """When the latest event was, nanoseconds since the epoch; it never stays the same when something happens."""
        return self._latest_ns

    def subscribe(self, sink: Callable[[Event], None]) -> Callable[[], None]:
        """Call `sink`, which must not block, for every event from now on; the result ends that."""
        with self._lock:
            self._next += 1
            key = self._next
            self._sinks[key] = sink

        def unsubscribe() -> None:
            with self._lock:
                self._sinks.pop(key, None)

        return unsubscribe

    def history(self, since_ns: int = 0, until_ns: int | None = None) -> list[Event]:
        """Remembered events between two times, oldest first."""
        with self._lock:
            known_from = self._recent[0].time_nano if len(self._recent) == REMEMBERED else self._begun_ns
            found = list(self._recent)
            if self._directory is not None and since_ns < known_from:
                found = [e for e in self._written(self._directory) if e.time_nano < known_from] + found
            return [e for e in found if e.time_nano >= since_ns and (until_ns is None or e.time_nano <= until_ns)]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _write(self, event: Event, directory: Path) -> None:
        """Append a line. A full disk costs the history, never what happens."""
        line = _encoder.encode(event) + b"\n"
        try:
            if self._fd < 0:
                self._open(directory)
            elif self._size + len(line) > FILE_BYTES:
                os.close(self._fd)
                self._fd = -1
                os.rename(directory / CURRENT, directory / BEFORE)
                self._open(directory)
            self._size += os.write(self._fd, line)
        except OSError as error:
            log.warning("an event could not be kept: %s", error)

    def _open(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(directory / CURRENT, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    @staticmethod
    def _written(directory: Path) -> Iterator[Event]:
        for name in (BEFORE, CURRENT):
            try:
                data = (directory / name).read_bytes()
            except FileNotFoundError:
                continue
            for line in data.splitlines():
                try:
                    yield _decoder.decode(line)
                except msgspec.DecodeError:
                    continue  # a line that a full disk or a power cut left incomplete
