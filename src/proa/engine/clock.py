"""Wall-clock times as clients show them; never used for time-outs."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> str:
    """The current time, RFC 3339 in UTC with nanoseconds."""
    return rfc3339(time.time_ns())


def rfc3339(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch; 0.0 for Go's zero time or what is no time."""
    return parse_rfc3339_ns(text) / 1_000_000_000  # of integers, so rounded once


def parse_rfc3339_ns(text: str) -> int:
    """The same in nanoseconds, exactly: seconds as a float are 200 ns apart."""
    try:
        head, _, tail = text.partition(".")
        fraction = tail.rstrip("Z").replace("-", "+").partition("+")[0]
        base = datetime.fromisoformat(head.removesuffix("Z") + tail[len(fraction) :].removesuffix("Z"))
        if base.tzinfo is None:
            base = base.replace(tzinfo=UTC)
        return max(int(base.timestamp()) * 1_000_000_000 + int(fraction[:9].ljust(9, "0")), 0)
    except ValueError:
        return 0
