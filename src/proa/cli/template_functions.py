"""The functions of `--format` templates: Go's built-ins and the ones Docker adds, over plain data."""

from __future__ import annotations

from proa.client.jsonlite import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["FUNCTIONS", "go_text", "truth"]


def truth(value: Any) -> bool:
    """Go's truth: false, 0, nil and empty are not."""
    return bool(value)


def go_text(value: Any) -> str:
    """A value as Go's fmt prints it with %v."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + " ".join([_inner(item) for item in value]) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join([f"{key}:{_inner(value[key])}" for key in sorted(value)]) + "]"
    return str(value)


def _inner(value: Any) -> str:
    return "<nil>" if value is None else go_text(value)


def _json(value: Any) -> str:
    return dumps(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, "")
        else:
            if not 0 <= key < len(value):
                raise IndexError(f"index out of range: {key}")
            value = value[key]
    return value


def _slice(value: Any, start: int = 0, end: int | None = None) -> Any:
    return value[start:end]


def _printf(form: str, *values: Any) -> str:
    out, rest = "", list(values)
    position = 0
    while position < len(form):
        char = form[position]
        position += 1
        if char != "%":
            out += char
            continue
        flags = ""
        while position < len(form) and form[position] in "-+ 0123456789.":
            flags += form[position]
            position += 1
        verb = form[position : position + 1]
        position += 1
        if verb == "%":
            out += "%"
        elif verb in ("s", "v"):
            out += f"%{flags}s" % go_text(rest.pop(0))
        elif verb == "q":
            out += dumps(go_text(rest.pop(0)))
        elif verb in tuple("dxXofgeE"):
            out += f"%{flags}{verb}" % rest.pop(0)
        else:
            raise ValueError(f"unknown verb %{verb}")
    return out


def _equal(first: Any, *others: Any) -> bool:
    return any(first == other for other in others)


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _and(*values: Any) -> Any:
    for value in values:
        if not truth(value):
            return value
    return values[-1]


def _or(*values: Any) -> Any:
    for value in values:
        if truth(value):
            return value
    return values[-1]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": _and,
    "eq": _equal,
    "ge": lambda a, b: a >= b,
    "gt": lambda a, b: a > b,
    "index": _index,
    "join": lambda values, separator: separator.join([go_text(v) for v in values or ()]),
    "json": _json,
    "le": lambda a, b: a <= b,
    "len": lambda value: len(value or ()),
    "lower": lambda text: go_text(text).lower(),
    "lt": lambda a, b: a < b,
    "ne": lambda a, b: a != b,
    "not": lambda value: not truth(value),
    "or": _or,
    "pad": _pad,
    "print": lambda *values: "".join([go_text(v) for v in values]),
    "printf": _printf,
    "println": lambda *values: " ".join([go_text(v) for v in values]) + "\n",
    "slice": _slice,
    "split": lambda text, separator: text.split(separator),
    "title": lambda text: text[:1].upper() + text[1:],
    "truncate": lambda text, count: text[:count],
    "upper": lambda text: go_text(text).upper(),
}
