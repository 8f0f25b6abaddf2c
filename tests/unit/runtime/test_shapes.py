"""Shapes against msgspec, which checked config.json before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from proa.runtime import shapes
from proa.runtime.shapes import Mismatch, Shape, field, integer, listed, mapped, optional, shaped, text


class Inner(Shape):
    """Of each kind one."""

    count: int = field(integer(0, 9), 0)
    some_names: Sequence[str] = field(listed(text), ())


class Outer(Shape):
    """With required, renamed, optional and nested fields."""

    name: str = field(text)
    is_on: bool = field(shapes.boolean, False, wire="isON")
    limit: int | None = field(optional(integer(-1)), None)
    inner: Inner = field(shaped(Inner), Inner())
    table: Mapping[str, int] = field(mapped(integer()), {})
    many: Sequence[Inner] = field(listed(shaped(Inner)), ())
    rest: Any = field(shapes.anything, None)


class StructInner(msgspec.Struct, rename="camel"):
    """`Inner` for msgspec."""

    count: Annotated[int, Meta(ge=0, le=9)] = 0
    some_names: list[str] = []


class StructOuter(msgspec.Struct, rename="camel"):
    """`Outer` for msgspec."""

    name: str
    is_on: bool = msgspec.field(name="isON", default=False)
    limit: Annotated[int, Meta(ge=-1)] | None = None
    inner: StructInner = msgspec.field(default_factory=StructInner)
    table: dict[str, int] = {}
    many: list[StructInner] = []
    rest: Any = None


def plain(value: Any) -> Any:
    """A shape as msgspec's builtins."""
    if isinstance(value, Shape):
        return {wire: plain(getattr(value, name)) for wire, (name, _check) in value._fields.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


scalars = st.none() | st.booleans() | st.integers(-2, 11) | st.text("ab", max_size=2) | st.just(1.0)
inners = st.dictionaries(st.sampled_from(["count", "someNames", "other"]), scalars | st.lists(scalars, max_size=2))
documents = st.dictionaries(
    st.sampled_from(["name", "isON", "limit", "inner", "table", "many", "rest"]),
    scalars | inners | st.lists(inners, max_size=2) | st.dictionaries(st.text("ab", max_size=1), scalars, max_size=2),
    max_size=4,
).map(lambda found: {"name": "n", **found})


@given(documents)
def test_they_take_what_msgspec_takes_and_say_the_same_of_the_rest(document: dict[str, Any]) -> None:
    try:
        wanted: Any = msgspec.to_builtins(msgspec.convert(document, StructOuter))
    except msgspec.ValidationError:
        with pytest.raises(Mismatch):
            shapes.convert(document, Outer)
    else:
        assert plain(shapes.convert(document, Outer)) == wanted


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": 1},
        {"name": "n", "isON": 1},
        {"name": "n", "limit": -2},
        {"name": "n", "inner": {"count": 10}},
        {"name": "n", "many": [{}, {"someNames": ["a", None]}]},
        {"name": "n", "table": {"a": 1.0}},
        {"name": "n", "many": {}},
        [],
    ],
)
def test_the_place_is_told(document: Any) -> None:
    with pytest.raises(msgspec.ValidationError) as theirs:
        msgspec.convert(document, StructOuter)
    with pytest.raises(Mismatch) as ours:
        shapes.convert(document, Outer)
    # msgspec says first that there may be null, too.
    assert str(ours.value) == str(theirs.value).replace("int | null", "int")


def test_they_compare_by_value_and_cannot_be_changed() -> None:
    one = shapes.convert({"name": "n", "many": []}, Outer)
    assert one == Outer(name="n")
    assert one != Outer(name="m")
    assert one != Inner()
    with pytest.raises(AttributeError):
        one.name = "m"
