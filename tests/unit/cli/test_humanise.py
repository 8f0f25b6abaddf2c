from __future__ import annotations

import time

import pytest

from proa.cli.humanise import age, binary_size, decimal_size, parse_time, short_id, span
from proa.cli.moments import moment
from proa.errors import Invalid


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (2 * 3600, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_ages() -> None:
    assert age(time.time() - 5) == "5 seconds ago"
    assert age(0) == "N/A"


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (999, "999B"), (1000, "1kB"), (120_400_000, "120MB"), (1_234_567_890, "1.23GB")]
)
def test_decimal_sizes(size: int, text: str) -> None:
    assert decimal_size(size) == text


def test_binary_sizes() -> None:
    assert binary_size(1536 * 1024) == "1.5MiB"
    assert binary_size(24 << 30) == "24GiB"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-31T12:00:00.5Z", 1769860800.5),
        ("2026-01-31T14:00:00+02:00", 1769860800),
        ("2026-01-31T10:30:00.000000000-01:30", 1769860800),
        ("2000-02-29T00:00:00Z", 951782400),
        ("0001-01-01T00:00:00Z", 0),
        ("", 0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


def test_moments() -> None:
    assert moment("", "since") == ""
    assert moment("1700000000.25", "since") == "1700000000.25"
    assert moment("2026-01-31T12:00:00Z", "since") == "1769860800.000000000"
    assert moment("2026-01-31T12:00:00.123456789Z", "since") == "1769860800.123456789"
    assert moment("2026-01-31T13:00:00.1+01:00", "since") == "1769860800.100000000"
    assert abs(float(moment("1h30m", "since")) - (time.time() - 5400)) < 5
    for text in ("yesterday", "2026-13", "2026-01-31T99"):
        with pytest.raises(Invalid):
            moment(text, "since")


def test_short_ids() -> None:
    assert short_id("sha256:" + "ab" * 32) == "abababababab"
    assert short_id("cd" * 32, full=True) == "cd" * 32
