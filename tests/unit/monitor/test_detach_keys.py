"""The detach key sequence: recognised across reads, and nothing typed is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proa.monitor.keys import DetachKeys


def feed(sequence: bytes, chunks: list[bytes]) -> tuple[bytes, bool]:
    keys = DetachKeys(sequence)
    passed = b""
    for chunk in chunks:
        more, detached = keys.feed(chunk)
        passed += more
        if detached:
            return passed, True
    return passed, False


def test_default_sequence_detaches_and_is_swallowed() -> None:
    assert feed(b"\x10\x11", [b"ls\n\x10\x11rest"]) == (b"ls\n", True)


def test_sequence_split_over_reads() -> None:
    assert feed(b"\x10\x11", [b"a\x10", b"\x11"]) == (b"a", True)


def test_a_prefix_alone_is_held_then_released() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"x") == (b"\x10x", False)


def test_a_mismatch_may_begin_a_new_match() -> None:
    assert feed(b"\x10\x11", [b"\x10\x10\x11"]) == (b"\x10", True)
    assert feed(b"aab", [b"aaab"]) == (b"a", True)


def test_no_sequence_passes_everything() -> None:
    assert feed(b"", [b"\x10\x11"]) == (b"\x10\x11", False)


@given(st.lists(st.sampled_from(list(b"abc")), max_size=40).map(bytes), st.integers(0, 40))
def test_detaches_exactly_where_the_sequence_first_ends(typed: bytes, cut: int) -> None:
    sequence = b"aba"
    passed, detached = feed(sequence, [typed[:cut], typed[cut:]])
    at = typed.find(sequence)
    assert detached == (at >= 0)
    if detached:
        assert passed == typed[:at]
    else:
        # Only a held prefix may be missing.
        assert typed.startswith(passed)
        assert sequence.startswith(typed[len(passed) :])
