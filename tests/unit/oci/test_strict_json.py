from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.errors import Invalid
from proa.oci.strict_json import strict_loads

LIMIT = 1 << 20


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"{}{}",
        b"{} x",
        b"{'a': 1}",
        b'{"a": 1,}',
        b"[1,]",
        b"nul",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"[1e999]",
        b"[-1e999]",
        b"[9007199254740993]",
        b"[-9007199254740993]",
        b"[" + b"1" * 5000 + b"]",
        b"[01]",
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"mediaType": 1, "mediatype": 2}',
        b'{"layers": [], "Layers": []}',
        b'{"Config": {}, "config": {}}',
        b'["\\ud800"]',
        b'{"\\udfff": 1}',
        b'["\n"]',
        b'["\x00"]',
        b"\xff\xfe{\x00}\x00",
        b'["\xff"]',
        b"\xef\xbb\xbf{}",
        b"[" * 65 + b"]" * 65,
        b"[" * 100_000,
        b'{"a":' * 70 + b"1" + b"}" * 70,
        b"/* c */ {}",
    ],
)
def test_what_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        strict_loads(raw, LIMIT, "thing")
    assert caught.value.code == "json-invalid"
    assert caught.value.message.startswith("thing ")
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"{}", {}),
        (b' \n[1, -2, 2.5, "x", null, true] ', [1, -2, 2.5, "x", None, True]),
        (b"[9007199254740992]", [2**53]),
        (b'{"A": 1, "a": 2}', {"A": 1, "a": 2}),  # labels may differ in case only
        (b'{"Owner": 1, "owner": 2, "size": 3}', {"Owner": 1, "owner": 2, "size": 3}),
        (b'["\\ud83d\\ude00"]', ["\N{GRINNING FACE}"]),
        (b'["[[[[", "\\"[[", "\\\\"]', ["[[[[", '"[[', "\\"]),
        (b"[" * 64 + b"]" * 64, None),
        (b'["' + b"[" * 1000 + b'"]', ["[" * 1000]),
    ],
)
def test_what_is_taken(raw: bytes, value: object) -> None:
    found = strict_loads(raw, LIMIT)
    assert value is None or found == value


def test_the_limit_is_exact() -> None:
    assert strict_loads(b'"' + b"x" * 98 + b'"', 100) == "x" * 98
    with pytest.raises(Invalid) as caught:
        strict_loads(b'"' + b"x" * 99 + b'"', 100, "config")
    assert caught.value.code == "too-large"
    assert "config" in caught.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.from_regex(r"[a-z]{1,3}"), children, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
def test_the_same_as_json(value: object) -> None:
    for ascii_only in (True, False):
        assert strict_loads(json.dumps(value, ensure_ascii=ascii_only).encode(), LIMIT) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        strict_loads(raw, LIMIT)
    except Invalid:
        pass


@pytest.mark.parametrize(
    "raw", [b'"' + b"\\" * (1 << 20), b'["' + b'\\"' * (1 << 19) + b'"]', b'"' * (1 << 20), b'[""' * (1 << 18)]
)
def test_hostile_documents_cost_little(raw: bytes) -> None:
    begun = time.process_time()
    try:
        strict_loads(raw, 4 << 20)
    except Invalid:
        pass
    assert time.process_time() - begun < 2.0  # a megabyte: some 30 ms; a quadratic scan would take minutes
