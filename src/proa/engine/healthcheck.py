"""Healthchecks as data: what is asked for, what of it is checked, and what a result makes of a container's health."""

from __future__ import annotations

import msgspec

from proa.engine.clock import parse_rfc3339
from proa.engine.types import Container, Health, ProbeResult
from proa.errors import Invalid
from proa.oci import Healthcheck

SECOND = 1_000_000_000
# Docker's defaults, and how much it keeps.
INTERVAL_S = 30.0
TIMEOUT_S = 30.0
START_INTERVAL_S = 5.0
RETRIES = 3
RESULTS_KEPT = 5
SHORTEST = SECOND // 1000
ACTIONS = ("none", "kill", "restart", "stop")


def check_healthcheck(check: Healthcheck | None) -> None:
    """Raise Invalid with Docker's words for a check that cannot be run."""
    if check is None:
        return
    if check.test and check.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise Invalid(f"Unknown healthcheck type '{check.test[0]}' (expected 'CMD')", code="healthcheck-type")
    for name in ("interval", "timeout", "start_period", "start_interval"):
        if 0 != getattr(check, name) < SHORTEST:
            words = {"start_period": "StartPeriod", "start_interval": "StartInterval"}.get(name, name.capitalize())
            raise Invalid(f"{words} in Healthcheck cannot be less than 1ms", code="healthcheck-duration")
    if check.retries < 0:
        raise Invalid("Retries in Healthcheck cannot be negative", code="healthcheck-retries")
    if check.on_failure not in ("", *ACTIONS):
        raise Invalid(
            f"invalid action on failed health: '{check.on_failure}'",
            code="healthcheck-action",
            hint=f"use one of {', '.join(ACTIONS)}",
        )


def probe_command(record: Container) -> list[str]:
    """What a probe runs; empty when the container has no check."""
    check = record.config.healthcheck
    test = (check.test if check else None) or ["NONE"]
    if test[0] == "CMD":
        return test[1:]
    if test[0] == "CMD-SHELL" and len(test) > 1:
        return [*(record.config.shell or ["/bin/sh", "-c"]), *test[1:]]
    return []


def merged_check(wanted: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """What the user asked for, and the image's for what was left open. What to do on failure is the user's alone."""
    if image is None or wanted is None or (wanted.test and wanted.test[0] == "NONE"):
        found = wanted or image
        return msgspec.structs.replace(found, on_failure="") if found is not None and wanted is None else found
    return Healthcheck(
        test=wanted.test or image.test,
        interval=wanted.interval or image.interval,
        timeout=wanted.timeout or image.timeout,
        start_period=wanted.start_period or image.start_period,
        start_interval=wanted.start_interval or image.start_interval,
        retries=wanted.retries or image.retries,
        on_failure=wanted.on_failure,
    )


def judge(record: Container, result: ProbeResult) -> Health:
    """The container's health after a probe. A new object: readers copy the record without its lock."""
    check, health = record.config.healthcheck, record.state.health or Health()
    status, streak = health.status, health.failing_streak
    if result.exit_code == 0:
        status, streak = "healthy", 0
    elif status != "starting" or not _starting_up(record, parse_rfc3339(result.start)):
        streak += 1
        if streak >= (check.retries if check and check.retries > 0 else RETRIES):
            status = "unhealthy"
    return Health(status=status, failing_streak=streak, log=[*health.log, result][-RESULTS_KEPT:])


def timeout_s(record: Container) -> float:
    """Seconds a probe may take."""
    check = record.config.healthcheck
    return _seconds(check.timeout if check else 0, TIMEOUT_S)


def interval_s(record: Container, now_s: float) -> float:
    """Seconds until the next probe: more often while the container starts up."""
    check, health = record.config.healthcheck, record.state.health
    if health is not None and health.status == "starting" and _starting_up(record, now_s):
        return _seconds(check.start_interval if check else 0, START_INTERVAL_S)
    return _seconds(check.interval if check else 0, INTERVAL_S)


def _starting_up(record: Container, now_s: float) -> bool:
    period = record.config.healthcheck.start_period if record.config.healthcheck else 0
    return now_s - parse_rfc3339(record.state.started_at) < period / SECOND


def _seconds(ns: int, default: float) -> float:
    """An image may say anything: what is no duration is not said."""
    return ns / SECOND if ns >= SHORTEST else default
