"""Filters of image lists and prunes: Docker's, and `id`, `digest` and `containers`, which podman has."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec

from proa.engine.clock import parse_rfc3339
from proa.engine.filters import match_labels, until_time
from proa.engine.types import ImageRecord
from proa.errors import Invalid
from proa.oci import parse_reference
from proa.oci.short_names import ShortNames

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_MAX_PATTERN = 1000


def filter_images(
    records: Sequence[ImageRecord],
    key: str,
    values: Sequence[str],
    *,
    created_of: Callable[[str], str],
    short_names: ShortNames,
) -> list[ImageRecord]:
    """The records that pass one filter. `created_of` gives when a named image was made. Raises Invalid, NotFound."""
    if key == "dangling":
        want = truth(key, values)
        return [r for r in records if (not r.names) is want]
    if key == "containers":
        want = truth(key, values)
        return [r for r in records if bool(r.containers) is want]
    if key == "label":
        return [r for r in records if match_labels(r.labels, values)]
    if key == "label!":
        return [r for r in records if not any(match_labels(r.labels, [value]) for value in values)]
    if key == "reference":
        return _by_reference(records, values, short_names)
    if key == "id":
        return [
            r
            for r in records
            if any(r.id.removeprefix("sha256:").startswith(v.removeprefix("sha256:")) for v in values)
        ]
    if key == "digest":
        return [r for r in records if r.manifest in values or any(d.partition("@")[2] in values for d in r.digests)]
    if key in ("before", "since"):
        times = [parse_rfc3339(created_of(value)) for value in values]
        if key == "before":
            return [r for r in records if parse_rfc3339(r.created) < min(times)]
        return [r for r in records if parse_rfc3339(r.created) > max(times)]
    if key == "until":
        limit = min(until_time(value) for value in values)
        return [r for r in records if parse_rfc3339(r.created) < limit]
    raise Invalid(f"invalid filter '{key}'", code="filter-invalid")


def truth(key: str, values: Sequence[str]) -> bool:
    """The value of a filter that is true or false. Raises Invalid."""
    found = {_BOOLEANS.get(value) for value in values}
    if len(found) != 1 or None in found:
        raise Invalid(f"invalid filter '{key}=[{' '.join(values)}]'", code="filter-invalid")
    return bool(found.pop())


def _by_reference(
    records: Sequence[ImageRecord], patterns: Sequence[str], short_names: ShortNames
) -> list[ImageRecord]:
    """Docker shows the names that match, not the image's other ones."""

    def matches(name: str) -> bool:
        reference = parse_reference(name)
        shown = (short_names.familiar(reference), short_names.familiar_repository(reference))
        return any(path_match(pattern, text) for pattern in patterns for text in shown)

    out = []
    for record in records:
        if names := [name for name in record.names if matches(name)]:
            found = [parse_reference(name) for name in names]
            repositories = {f"{r.registry}/{r.repository}" for r in found}
            digests = [d for d in record.digests if d.partition("@")[0] in repositories]
            out.append(msgspec.structs.replace(record, names=names, digests=digests))
    return out


def path_match(pattern: str, text: str) -> bool:
    """Go's path.Match: `*` and `?` match no slash, `[a-z]` one character, backslash escapes. Raises Invalid."""
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(64)
def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > _MAX_PATTERN:
        raise Invalid("the pattern of a filter is too long", code="filter-invalid")
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            out += "[^/]*"
            while pattern[at : at + 1] == "*":
                at += 1
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise _bad(pattern)
            body = pattern[at:end].replace("\\", "\\\\").replace("[", "\\[")
            out += f"[{body}]"
            at = end + 1
        elif char == "\\":
            if at == len(pattern):
                raise _bad(pattern)
            out += re.escape(pattern[at])
            at += 1
        else:
            out += re.escape(char)
    try:
        return re.compile(out)
    except re.error:
        raise _bad(pattern) from None


def _bad(pattern: str) -> Invalid:
    return Invalid(f"invalid filter 'reference={pattern[:100]}': syntax error in pattern", code="filter-invalid")
