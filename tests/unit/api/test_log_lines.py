"""The engine's log: rate limited, and harmless on a terminal."""

from __future__ import annotations

import io
import logging
import time

import pytest

from proa.api.logs import Line, RateLimit


def _logger(limit: RateLimit) -> tuple[logging.Logger, io.StringIO]:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(Line("%(levelname)s %(message)s"))
    handler.addFilter(limit)
    logger = logging.getLogger(f"test-{id(limit)}")
    logger.propagate = False
    logger.addHandler(handler)
    return logger, out


def test_a_flood_is_counted_instead_of_written(monkeypatch: pytest.MonkeyPatch) -> None:
    logger, out = _logger(RateLimit(10, 60))
    for i in range(1000):
        logger.error("line %d", i)
    assert out.getvalue().count("\n") == 10
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    logger.error("line %s", "after")
    assert out.getvalue().splitlines()[-1] == "ERROR (990 lines dropped) line after"


def test_control_characters_do_not_reach_a_terminal() -> None:
    logger, out = _logger(RateLimit())
    logger.error("name %s", "\x1b[31mred\x1b[0m \u202e \udcff")
    assert out.getvalue() == "ERROR name \\x1b[31mred\\x1b[0m \\u202e \\udcff\n"
