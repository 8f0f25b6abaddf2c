from __future__ import annotations

from typing import Any

import pytest
from records import container

from proa.engine.clock import parse_rfc3339, rfc3339
from proa.engine.healthcheck import check_healthcheck, interval_s, judge, merged_check, probe_command, timeout_s
from proa.engine.types import Container, Health, ProbeResult
from proa.errors import Invalid
from proa.oci import Healthcheck

SECOND = 1_000_000_000
STARTED = "2026-01-01T00:00:00.000000000Z"


def checked(health: Health | None = None, **check: Any) -> Container:
    """A container with a check, started at STARTED."""
    found = container(config={"healthcheck": Healthcheck(test=["CMD", "true"], **check)})
    found.state.health = health or Health()
    found.state.started_at = STARTED
    return found


def probed(code: int, after_s: int = 100) -> ProbeResult:
    """A result of a probe that began so many seconds after the start."""
    at = rfc3339(int(parse_rfc3339(STARTED) * SECOND) + after_s * SECOND)
    return ProbeResult(start=at, end=at, exit_code=code, output="")


def test_one_success_is_health() -> None:
    assert judge(checked(), probed(0)).status == "healthy"
    was_ill = checked(Health(status="unhealthy", failing_streak=7))
    assert (judge(was_ill, probed(0)).status, judge(was_ill, probed(0)).failing_streak) == ("healthy", 0)


def test_failures_in_a_row_are_illness() -> None:
    found = checked(Health(status="healthy"), retries=2)
    found.state.health = judge(found, probed(1))
    assert (found.state.health.status, found.state.health.failing_streak) == ("healthy", 1)
    found.state.health = judge(found, probed(-1))
    assert (found.state.health.status, found.state.health.failing_streak) == ("unhealthy", 2)


def test_failures_while_it_starts_up_do_not_count() -> None:
    found = checked(retries=1, start_period=60 * SECOND)
    assert (judge(found, probed(1, 59)).status, judge(found, probed(1, 59)).failing_streak) == ("starting", 0)
    assert judge(found, probed(1, 61)).status == "unhealthy"
    found.state.health = Health(status="healthy")
    assert judge(found, probed(1, 5)).status == "unhealthy"  # it had started up


def test_five_results_are_kept() -> None:
    found = checked()
    for code in range(8):
        found.state.health = judge(found, probed(code))
    assert found.state.health is not None
    assert [r.exit_code for r in found.state.health.log] == [3, 4, 5, 6, 7]


def test_how_often() -> None:
    now = parse_rfc3339(STARTED)
    found = checked(interval=7 * SECOND, start_interval=2 * SECOND, start_period=10 * SECOND)
    assert interval_s(found, now + 9) == 2.0
    assert interval_s(found, now + 11) == 7.0
    found.state.health = Health(status="healthy")
    assert interval_s(found, now + 1) == 7.0
    assert (interval_s(checked(), now), timeout_s(checked())) == (30.0, 30.0)
    assert interval_s(checked(start_period=SECOND), now) == 5.0
    assert timeout_s(checked(interval=-1, timeout=-5)) == 30.0  # an image may say anything


@pytest.mark.parametrize(
    ("test", "shell", "command"),
    [
        (["CMD", "/a", "b"], None, ["/a", "b"]),
        (["CMD-SHELL", "a b"], None, ["/bin/sh", "-c", "a b"]),
        (["CMD-SHELL", "a b"], ["/bin/ash", "-ec"], ["/bin/ash", "-ec", "a b"]),
        (["NONE"], None, []),
        (["CMD-SHELL"], None, []),
        (["OTHER", "x"], None, []),
        ([], None, []),
    ],
)
def test_what_a_probe_runs(test: list[str], shell: list[str] | None, command: list[str]) -> None:
    found = container(config={"healthcheck": Healthcheck(test=test), "shell": shell})
    assert probe_command(found) == command


def test_no_check_no_probe() -> None:
    assert probe_command(container()) == []


def test_the_image_fills_what_the_user_left_open() -> None:
    image = Healthcheck(test=["CMD", "image"], interval=5, retries=4, on_failure="kill")
    assert merged_check(None, image) == Healthcheck(test=["CMD", "image"], interval=5, retries=4)
    assert merged_check(Healthcheck(retries=9, on_failure="stop"), image) == Healthcheck(
        test=["CMD", "image"], interval=5, retries=9, on_failure="stop"
    )
    none = Healthcheck(test=["NONE"])
    assert merged_check(none, image) == none
    assert merged_check(none, None) == none
    assert merged_check(None, None) is None


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (Healthcheck(test=["SHELL", "x"]), "Unknown healthcheck type 'SHELL'"),
        (Healthcheck(interval=5), "Interval in Healthcheck cannot be less than 1ms"),
        (Healthcheck(start_period=-SECOND), "StartPeriod in Healthcheck cannot be less than 1ms"),
        (Healthcheck(retries=-1), "Retries in Healthcheck cannot be negative"),
        (Healthcheck(on_failure="explode"), "invalid action on failed health: 'explode'"),
    ],
)
def test_checks_that_cannot_be(check: Healthcheck, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        check_healthcheck(check)
