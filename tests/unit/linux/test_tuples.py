"""Named tuples and remembered results, as the standard library's are."""

from __future__ import annotations

import pickle
import typing

import msgspec
import pytest

from proa.linux.once import once
from proa.linux.tuples import NamedTuple


class Ours(NamedTuple):
    """Three fields, one with a default."""

    first: int
    second: str
    third: tuple[int, ...] = (1,)

    @property
    def both(self) -> str:
        """A property beside the fields."""
        return f"{self.first}{self.second}"


class Theirs(typing.NamedTuple):
    """The same of typing's."""

    first: int
    second: str
    third: tuple[int, ...] = (1,)


@pytest.mark.parametrize(
    ("given", "named"),
    [((1, "a"), {}), ((1, "a", (2,)), {}), ((1,), {"second": "b"}), ((), {"second": "b", "first": 2})],
)
def test_they_are_made_as_typings_are(given: tuple[typing.Any, ...], named: dict[str, typing.Any]) -> None:
    ours, theirs = Ours(*given, **named), Theirs(*given, **named)
    assert ours == theirs
    assert repr(ours).partition("(")[2] == repr(theirs).partition("(")[2]
    assert (ours.first, ours.second, ours.third) == (theirs.first, theirs.second, theirs.third)
    assert ours._replace(first=7) == theirs._replace(first=7)
    assert ours.both == f"{theirs.first}{theirs.second}"
    assert pickle.loads(pickle.dumps(ours)) == ours
    assert type(ours._replace(second="c")) is Ours


@pytest.mark.parametrize(
    ("given", "named"),
    [((), {}), ((1,), {}), ((1, "a", (), 4), {}), ((1, "a"), {"first": 1}), ((1, "a"), {"fourth": 1})],
)
def test_what_typings_refuse_is_refused(given: tuple[typing.Any, ...], named: dict[str, typing.Any]) -> None:
    for kind in (Ours, Theirs):
        with pytest.raises(TypeError):
            kind(*given, **named)


def test_msgspec_takes_them_for_named_tuples() -> None:
    assert msgspec.json.decode(b'[1,"x"]', type=Ours) == Ours(1, "x")
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'["y","x"]', type=Ours)


def test_once_asks_once_and_again_only_after_a_failure() -> None:
    answers = iter([ValueError(), 5])

    @once
    def ask() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(ValueError):
        ask()
    assert [ask(), ask(), ask()] == [5, 5, 5]
