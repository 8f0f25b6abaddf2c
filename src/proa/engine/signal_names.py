"""Signals as users write them: `SIGTERM`, `TERM`, `15`, `RTMIN+3`."""

from __future__ import annotations

import signal

from proa.errors import Invalid

_NAMES = {name.removeprefix("SIG"): int(s) for name, s in signal.Signals.__members__.items()}  # with aliases


def parse_signal(text: str) -> int:
    """The signal's number. Raises Invalid with Docker's words."""
    name = text.strip().upper().removeprefix("SIG")
    if name.isascii() and name.isdigit() and len(name) <= 2 and 1 <= int(name) <= signal.NSIG - 1:
        return int(name)
    if name in _NAMES:
        return _NAMES[name]
    for base in ("RTMIN+", "RTMAX-"):
        offset = name.removeprefix(base)
        if name.startswith(base) and offset.isascii() and offset.isdigit() and len(offset) <= 2:
            number = _NAMES[base[:-1]] + (int(offset) if base == "RTMIN+" else -int(offset))
            if _NAMES["RTMIN"] <= number <= _NAMES["RTMAX"]:
                return number
    raise Invalid(f"Invalid signal: {text[:40]}", code="signal-invalid")
