"""Points in time on the command line: `42m` ago, seconds since 1970, or RFC 3339."""

from __future__ import annotations

import time

from proa.cli.humanise import parse_time_ns
from proa.cli.values import duration_ns
from proa.errors import Invalid

__all__ = ["moment"]


def moment(text: str, option: str) -> str:
    """Seconds since 1970 with nanoseconds, as the engine takes them; empty stays empty.

    Raises Invalid for anything else.
    """
    if not text:
        return ""
    whole, dot, part = text.partition(".")
    if whole.isascii() and whole.isdigit() and (not dot or (part.isascii() and part.isdigit())):
        return text
    if text[0].isdigit() and text[:5].endswith("-"):
        try:
            full = text if "T" in text else f"{text}T00:00:00"
            clock = full.partition("T")[2]
            zoned = any(mark in clock for mark in "Z+-")
            ns = parse_time_ns(full if clock.count(":") >= 2 else full.replace(clock, f"{clock}:00"))
        except ValueError:
            raise Invalid(
                f"invalid time `{text}` for --{option}", code="bad-time", hint="write 2026-01-31T12:00:00Z"
            ) from None
        if not zoned:
            ns += time.timezone * 1_000_000_000  # without a zone it is local time
        return _seconds(ns)
    return _seconds(time.time_ns() - int(duration_ns(text, option)))


def _seconds(ns: int) -> str:
    return f"{ns // 1_000_000_000}.{ns % 1_000_000_000:09d}"
