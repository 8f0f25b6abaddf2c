"""Events: tell whoever listens what happened, and remember the last of it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from proa.engine.types import Event

# Docker keeps 256 for replay; a test run with compose makes more, and 1,024 small records are under half a MiB.
REMEMBERED = 1024


class Events:
    """A bus with a short memory. Sinks are called on the publishing thread and must not block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[Event] = deque(maxlen=REMEMBERED)
        self._sinks: dict[int, Callable[[Event], None]] = {}
        self._next = 0

    def publish(self, type: str, action: str, id: str, attributes: dict[str, str] | None = None) -> Event:  # noqa: A002
        """Record an event and hand it to every sink."""
        event = Event(type=type, action=action, id=id, attributes=attributes or {}, time_nano=time.time_ns())
        with self._lock:
            self._recent.append(event)
            sinks = list(self._sinks.values())
        for sink in sinks:
            sink(event)
        return event

    def subscribe(self, sink: Callable[[Event], None]) -> Callable[[], None]:
        """Call `sink` for every event from now on; the result ends that."""
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
            return [
                e for e in self._recent if e.time_nano >= since_ns and (until_ns is None or e.time_nano <= until_ns)
            ]
