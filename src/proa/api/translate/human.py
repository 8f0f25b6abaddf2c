"""Words for people inside machine-readable lists: `Up 3 minutes`, `Exited (0) About an hour ago`."""

from __future__ import annotations

from proa.engine.types import State

_MINUTE = 60
_HOUR = 60 * _MINUTE


def duration(seconds: float) -> str:
    """A duration as Docker's clients know it, after units.HumanDuration of docker/go-units."""
    if seconds < 1:
        return "Less than a second"
    if seconds < _MINUTE:
        return "1 second" if int(seconds) == 1 else f"{int(seconds)} seconds"
    minutes = int(seconds // _MINUTE)
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(seconds / _HOUR + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, unit, name in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if hours < limit * 24:
            return f"{hours // 24 // unit} {name}"
    return f"{hours // 24 // 365} years"


def status(state: State, now: float, started: float, finished: float) -> str:
    """The Status column: times in seconds since the epoch."""
    up = duration(max(now - started, 0.0))
    ago = duration(max(now - finished, 0.0))
    if state.status == "running":
        health = state.health.status if state.health else ""
        if health in ("", "none"):
            return f"Up {up}"
        return f"Up {up} (health: starting)" if health == "starting" else f"Up {up} ({health})"
    if state.status == "paused":
        return f"Up {up} (Paused)"
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {ago} ago"
    if state.status == "exited":
        return f"Exited ({state.exit_code}) {ago} ago"
    return {"created": "Created", "removing": "Removal In Progress", "dead": "Dead"}[state.status]
