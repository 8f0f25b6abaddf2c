"""Times as logs and events have them, to the nanosecond."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proa.engine.clock import parse_rfc3339, parse_rfc3339_ns, rfc3339


@given(st.integers(min_value=0, max_value=1 << 62))
def test_what_was_written_is_read(ns: int) -> None:
    assert parse_rfc3339_ns(rfc3339(ns)) == ns


def test_other_forms() -> None:
    at = 1_769_860_800_000_000_000
    assert parse_rfc3339_ns("2026-01-31T12:00:00Z") == at
    assert parse_rfc3339_ns("2026-01-31T12:00:00.5Z") == at + 500_000_000
    assert parse_rfc3339_ns("2026-01-31T13:30:00.000000001+01:30") == at + 1
    assert parse_rfc3339_ns("2026-01-31T11:00:00-01:00") == at
    assert parse_rfc3339_ns("0001-01-01T00:00:00Z") == 0
    assert parse_rfc3339_ns("never") == 0
    assert parse_rfc3339("2026-01-31T12:00:00.25Z") == 1_769_860_800.25
