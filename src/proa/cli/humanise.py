"""Sizes and ages for people, worded as Docker words them."""

from __future__ import annotations

import time

__all__ = ["age", "binary_size", "decimal_size", "local_time", "parse_time", "parse_time_ns", "short_id", "span"]

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def _scaled(size: float, step: float, units: tuple[str, ...], digits: int) -> str:
    unit = 0
    while size >= step and unit < len(units) - 1:
        size /= step
        unit += 1
    return f"{size:.{digits}g}{units[unit]}"


def decimal_size(size_bytes: float, digits: int = 3) -> str:
    """`120MB`: units of 1000."""
    return _scaled(size_bytes, 1000.0, _DECIMAL, digits)


def binary_size(size_bytes: float) -> str:
    """`1.5MiB`: units of 1024."""
    return _scaled(size_bytes, 1024.0, _BINARY, 4)


def span(seconds: float) -> str:
    """`5 minutes`, `About an hour`, `3 weeks`."""
    s = int(seconds)
    if s < 1:
        return "Less than a second"
    if s == 1:
        return "1 second"
    if s < 60:
        return f"{s} seconds"
    minutes = s // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def age(created: float) -> str:
    """`5 minutes ago`, from seconds since 1970."""
    return span(max(0.0, time.time() - created)) + " ago" if created > 0 else "N/A"


def local_time(seconds: float) -> str:
    """`2026-01-31 12:00:00 +0000 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def parse_time(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time; 0.0 for Go's zero time and for no time at all.

    Raises ValueError when it is not one.
    """
    return parse_time_ns(text) / 1_000_000_000  # of integers, so rounded once


def parse_time_ns(text: str) -> int:
    """The same in nanoseconds, exactly: seconds as a float are 200 ns apart."""
    if not text or text.startswith("0001-"):
        return 0
    date, _, clock = text.partition("T")
    zone, offset = "", 0
    for mark in ("Z", "+", "-"):
        if mark in clock:
            clock, _, zone = clock.partition(mark)
            if mark != "Z":
                hours, _, minutes = zone.partition(":")
                offset = (int(hours) * 3600 + int(minutes or 0) * 60) * (-1 if mark == "-" else 1)
            break
    year, month, day = (int(part) for part in date.split("-"))
    hour, minute, second = (clock or "00:00:00").split(":")
    days = _days(year, month, day)
    whole, _, part = second.partition(".")
    seconds = days * 86400 + int(hour) * 3600 + int(minute) * 60 + int(whole) - offset
    return seconds * 1_000_000_000 + int(part[:9].ljust(9, "0"))


def _days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the proleptic Gregorian calendar (Hinnant, days_from_civil)."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def short_id(identity: str, *, full: bool = False) -> str:
    """The first 12 digits of an id or digest."""
    return identity if full else identity.removeprefix("sha256:")[:12]
