"""The engine's own log: lines on stderr, and not more of them than anybody can read."""

from __future__ import annotations

import logging
import sys
import time

#: A burst of this many lines in one window passes; the rest is counted and told in one line.
LINES = 200
WINDOW_SECONDS = 10.0


class RateLimit(logging.Filter):
    """Drops lines past a budget per window, so that no client can fill the disk through the log."""

    def __init__(self, lines: int = LINES, window_s: float = WINDOW_SECONDS) -> None:
        super().__init__()
        self._lines = lines
        self._window_s = window_s
        self._until = 0.0
        self._left = 0
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a line too many; the first line of a new window tells how many were dropped."""
        now = time.monotonic()
        if now >= self._until:
            self._until, self._left = now + self._window_s, self._lines
            if self._dropped:
                record.msg, record.args = f"({self._dropped} lines dropped) {record.getMessage()}", None
                self._dropped = 0
        if self._left <= 0:
            self._dropped += 1
            return False
        self._left -= 1
        return True


class Line(logging.Formatter):
    """One record, one line (and its traceback): control characters of what clients sent do not reach a terminal."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """The record as text without control characters but line ends."""
        text = super().format(record)
        return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def configure(level: str = "INFO") -> None:
    """Log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"))
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.raiseExceptions = False  # a full disk under the log must not disturb the engine
