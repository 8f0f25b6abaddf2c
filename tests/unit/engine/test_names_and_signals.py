from __future__ import annotations

import re
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.engine.names import check_name, new_id, random_name
from proa.engine.signal_names import parse_signal
from proa.errors import Invalid


@pytest.mark.parametrize("name", ["ab", "/web", "web-1", "a.b_c-D9", "0x", "deadbeef", "a" * 1024, "f" * 63])
def test_names(name: str) -> None:
    assert check_name(name) == name.removeprefix("/")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a",
        "-ab",
        ".ab",
        "_ab",
        "a b",
        "a/b",
        "//ab",
        "ab\n",
        "ab\0",
        "a" * 1025,
        "f" * 64,
        "\xe4b",
        "a:b",
        "../x",
    ],
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(Invalid, match="Invalid container name"):
        check_name(name)


def test_random_names_are_names() -> None:
    seen = {random_name() for _ in range(300)}
    assert len(seen) > 200
    for name in seen:
        assert re.fullmatch(r"[a-z]+_[a-z]+", name)
        assert check_name(name) == name


def test_ids() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", new_id())
    assert len({new_id() for _ in range(100)}) == 100


@pytest.mark.parametrize("number", signal.Signals)
def test_every_signal_by_all_its_spellings(number: signal.Signals) -> None:
    short = number.name.removeprefix("SIG")
    for text in (number.name, short, number.name.lower(), short.lower(), str(int(number)), f" {short} "):
        assert parse_signal(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("RTMIN+3", 37), ("SIGRTMIN+0", 34), ("RTMAX-14", 50), ("sigrtmax-0", 64), ("CLD", 17), ("POLL", 29), ("64", 64)],
)
def test_aliases_and_real_time_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "65", "99", "100", "1.0", "TERMINATE", "SIG", "RTMIN+31", "RTMAX-31", "RTMIN+", "RTMIN-1", "+9",
     "RTMIN+\N{ARABIC-INDIC DIGIT ONE}", "\N{SUPERSCRIPT ONE}", "KILL\0", "SIGSIGKILL"],
)  # fmt: skip
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(Invalid, match="Invalid signal"):
        parse_signal(text)


@given(st.text(max_size=12))
def test_any_text_is_a_signal_or_refused(text: str) -> None:
    try:
        assert 1 <= parse_signal(text) <= 64
    except Invalid:
        pass
