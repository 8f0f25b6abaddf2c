"""The query string and JSON bodies, read as Docker's server reads them, but strictly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proa.api.messages import JSON_LIMIT, Reply, Request, json_body, typed, without_nulls
from proa.api.query import Query
from proa.engine.types import ExecRequest
from proa.errors import Invalid


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", True),
        ("a=true", True),
        ("a=True", True),
        ("a=maybe", True),
        ("a=0", False),
        ("a=", False),
        ("a=no", False),
        ("a=none", False),
        ("a=FALSE", False),
        ("b=1", False),
    ],
)
def test_flag(text: str, value: bool) -> None:
    assert Query.parse(text).flag("a") is value


def test_defaults() -> None:
    query = Query.parse("")
    assert query.flag("a", default=True)
    assert query.number("a", 7) == 7
    assert query.number("a") is None
    assert query.text("a", "x") == "x"
    assert query.filters() == {}


def test_values() -> None:
    query = Query.parse("n=-5&t=a&t=b&e=%C3%A9&s=1795412482.000000001")
    assert query.number("n") == -5
    assert query.texts("t") == ["a", "b"]
    assert query.text("e") == "é"
    assert query.nanoseconds("s") == 1795412482_000000001
    assert "n" in query


@pytest.mark.parametrize("text", ["x", "1_0", "٣", "1.5", "0x1", "1" * 30, " 1"])
def test_number_refuses(text: str) -> None:
    with pytest.raises(Invalid, match="not a number"):
        Query({"n": [text]}).number("n")


@pytest.mark.parametrize("text", ["abc", "-1", "1.", "1e9", "1.0000000001"])
def test_time_refuses(text: str) -> None:
    with pytest.raises(Invalid, match="Unix time"):
        Query({"t": [text]}).nanoseconds("t")


def test_bad_encoding_and_floods_are_refused() -> None:
    for text in ("a=%ff", "&".join(f"a{i}=1" for i in range(2000))):
        with pytest.raises(Invalid):
            Query.parse(text)


@pytest.mark.parametrize(
    ("raw", "filters"),
    [
        ('{"label":["a=b","c"]}', {"label": ["a=b", "c"]}),
        ('{"label":{"a=b":true,"c":false}}', {"label": ["a=b"]}),
        ("{}", {}),
    ],
)
def test_filters(raw: str, filters: dict[str, list[str]]) -> None:
    assert Query({"filters": [raw]}).filters() == filters


@pytest.mark.parametrize(
    "raw", ["zz", "[]", '{"a":1}', '{"a":[1]}', '{"a":"b"}', '{"a":["x"],"a":["y"]}', '{"a":{"b":1}}']
)
def test_filters_refuse(raw: str) -> None:
    with pytest.raises(Invalid):
        Query({"filters": [raw]}).filters()


class _Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, limit: int) -> bytes:
        assert limit == JSON_LIMIT
        return self._data

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._data


def _decode(data: bytes, **options: Any) -> Any:
    async def inside() -> Any:
        request = Request(method="POST", path="/", query=Query({}), headers={}, body=_Body(data), gone=asyncio.Event())
        return await json_body(request, **options)

    return asyncio.run(inside())


def test_json_body_drops_nulls_and_keeps_the_rest() -> None:
    assert _decode(b'{"a":null,"b":{"c":null,"d":[null,1]},"e":""}\n') == {"b": {"d": [None, 1]}, "e": ""}
    assert without_nulls([{"a": None}]) == [{}]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"  ",
        b"[]",
        b"1",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b"{" * 100,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b'{"a":"\\ud800"}',
        b"\xff",
        b'{"a":99999999999999999999999}',
        b'{"a":1}x',
    ],
)
def test_json_body_refuses(data: bytes) -> None:
    with pytest.raises(Invalid):
        _decode(data)


def test_an_optional_body_may_be_missing() -> None:
    assert _decode(b"", optional=True) == {}


def test_typed_names_what_is_wrong_and_ignores_the_unknown() -> None:
    assert typed({"Cmd": ["a"], "Unknown": 1}, ExecRequest, "exec config").cmd == ["a"]
    with pytest.raises(Invalid, match=r"invalid exec config: .*Cmd"):
        typed({"Cmd": 5}, ExecRequest, "exec config")


def test_reply_payloads() -> None:
    assert Reply(value={"a": 1}).payload() == (b'{"a":1}\n', "application/json")
    assert Reply(value=b"OK").payload() == (b"OK", "text/plain; charset=utf-8")
    assert Reply(status=204).payload() == (b"", "")
