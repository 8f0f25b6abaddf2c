from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.client.jsonlite import dumps, loads

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
def test_it_reads_and_writes_what_the_json_package_does(value: object) -> None:
    assert json.loads(dumps(value)) == value
    assert loads(json.dumps(value)) == value
    assert loads(dumps(value).encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")) == value


def test_white_space_around_a_document() -> None:
    assert loads(b' \r\n\t{"a" : [1 , 2]}\n') == {"a": [1, 2]}


@pytest.mark.parametrize("text", ["", "{", '{"a"', "[1,]", "{} x", "'a'", "nul", "\x00", '{"a":1}{"b":2}'])
def test_what_is_not_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


def test_only_plain_data_is_written() -> None:
    with pytest.raises(TypeError):
        dumps({"a": object()})
