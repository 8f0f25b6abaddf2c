"""`--filter key=value`, repeated, as the engine's filters parameter."""

from __future__ import annotations

from proa.client.jsonlite import dumps
from proa.errors import Invalid

__all__ = ["filters"]


def filters(texts: list[str], **fixed: str) -> str | None:
    """The JSON for `filters=`, None when there are none; `fixed` are filters of the command itself.

    Raises Invalid for a filter without `=`.
    """
    asked: dict[str, list[str]] = {}
    for text in texts:
        key, mark, value = text.partition("=")
        if not mark or not key:
            raise Invalid(f"invalid filter `{text}`", code="bad-filter", hint="write --filter key=value")
        asked.setdefault(key.strip().lower(), []).append(value.strip())
    for key, value in fixed.items():
        asked.setdefault(key, []).append(value)
    return dumps(asked) if asked else None
