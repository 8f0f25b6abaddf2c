"""Patterns of the reference filter are Go's path.Match."""

import time

import pytest

from proa.engine.image_filters import path_match, truth
from proa.errors import Invalid


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a", "a", True),
        ("a*", "abc", True),
        ("a*", "a/bc", False),
        ("*/*", "a/bc", True),
        ("*", "", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[]", "a", None),
        ("[a", "a", None),
        ("a\\*", "a*", True),
        ("a\\", "a", None),
        ("a.c", "abc", False),
        ("a+", "aa", False),
        ("[z-a]", "b", None),
        ("**", "ab", True),
    ],
)
def test_path_match(pattern, text, matches):
    if matches is None:
        with pytest.raises(Invalid):
            path_match(pattern, text)
    else:
        assert path_match(pattern, text) is matches


def test_hostile_pattern_is_refused_or_quick():
    with pytest.raises(Invalid):
        path_match("*a" * 600, "a" * 4000)
    before = time.process_time()
    path_match("*a*a*a*b", "a" * 200)
    assert time.process_time() - before < 1


def test_truth():
    assert truth("x", ["true"])
    assert not truth("x", ["0"])
    for bad in ([], ["maybe"], ["true", "false"]):
        with pytest.raises(Invalid):
            truth("x", bad)
