"""JSON from outside, read once and strictly: security rule R7."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from proa.errors import Invalid

MAX_DEPTH = 64
MAX_INT = 2**53


def strict_loads(raw: bytes, limit: int, what: str = "document") -> Any:
    """Decode UTF-8 JSON of at most `limit` bytes.

    Raises Invalid for more bytes, duplicate keys (also when they differ in case only: Go's decoder takes them for one),
    NaN and Infinity, numbers past 2**53, nesting deeper than 64, lone surrogates, or bytes after the value.
    """
    if len(raw) > limit:
        raise Invalid(f"{what} is {len(raw)} bytes long, at most {limit} are accepted", code="too-large")

    def refuse(why: str) -> NoReturn:
        raise Invalid(f"{what} is not acceptable JSON: {why}", code="json-invalid")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(items)
        if len({key.casefold() for key in out}) != len(items):
            refuse("a key occurs twice")
        return out

    def integer(text: str) -> int:
        if len(text) > 17 or abs(value := int(text)) > MAX_INT:
            refuse(f"number {text[:20]} is out of range")
        return value

    def real(text: str) -> float:
        if (value := float(text)) in (float("inf"), float("-inf")):
            refuse(f"number {text[:20]} is out of range")
        return value

    try:
        text = raw.decode("utf-8")
        if _depth(text) > MAX_DEPTH:
            refuse(f"nested deeper than {MAX_DEPTH}")
        value = json.loads(
            text,
            object_pairs_hook=pairs,
            parse_int=integer,
            parse_float=real,
            parse_constant=lambda name: refuse(f"{name} is no number"),
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # lone surrogates fail here rather than later
    except (ValueError, RecursionError) as e:
        refuse(str(e)[:200])
    return value


def _depth(text: str) -> int:
    """Nesting depth by counting brackets outside strings, so that no recursion has to be survived."""
    depth = deepest = 0
    in_string = escaped = False
    for c in text:
        if in_string:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == '"':
                in_string = False
        elif c == '"':
            in_string = True
        elif c in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif c in "]}":
            depth -= 1
    return deepest
