"""Events as Docker streams them, and its filters on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proa.engine.filters import match_labels
from proa.engine.types import Event
from proa.errors import Invalid

_KNOWN_FILTERS = {
    *("config", "container", "daemon", "event", "exec-id", "image", "label", "network"),
    *("node", "plugin", "scope", "secret", "service", "type", "volume"),
}
#: Types whose objects a filter of the type's own name selects, by id or name.
_BY_OBJECT = ("container", "image", "network", "volume", "daemon", "plugin")


def event(found: Event) -> dict[str, Any]:
    """One line of `GET /events`."""
    out: dict[str, Any] = {}
    if found.type in ("container", "image"):  # the members of the first API versions, kept by Docker up to 1.51
        out |= {"status": found.action, "id": found.id}
        if image := found.attributes.get("image"):
            out["from"] = image
    return out | {
        "Type": found.type,
        "Action": found.action,
        "Actor": {"ID": found.id, "Attributes": found.attributes},
        "scope": "local",
        "time": found.time_nano // 1_000_000_000,
        "timeNano": found.time_nano,
    }


class EventFilter:
    """True for the events a client asked for: every filter must pass, any of its values suffices."""

    def __init__(self, filters: Mapping[str, Sequence[str]]) -> None:
        unknown = sorted(set(filters) - _KNOWN_FILTERS)
        if unknown:
            raise Invalid(f"invalid filter '{unknown[0]}'", code="filter-invalid")
        self._filters = {name: frozenset(values) for name, values in filters.items() if values}

    def __call__(self, found: Event) -> bool:
        """Whether the event passes."""
        return all(self._passes(name, values, found) for name, values in self._filters.items())

    def _passes(self, name: str, values: frozenset[str], found: Event) -> bool:
        if name == "type":
            return found.type in values
        if name == "scope":
            return "local" in values
        if name == "event":
            # `exec_start: sh -c …` is asked for as `exec_start`, a health status with or without its value.
            return found.action in values or found.action.partition(":")[0] in values
        if name == "label":
            return match_labels(found.attributes, values)
        if name == "image" and found.type == "container":
            image = found.attributes.get("image", "")
            return image in values or image.rpartition(":")[0] in values
        if name in _BY_OBJECT:
            return found.type == name and _names_object(found, values)
        return False


def _names_object(found: Event, values: frozenset[str]) -> bool:
    name = found.attributes.get("name", "")
    if found.id in values or name in values:
        return True
    if found.type == "image":
        return name.rpartition(":")[0] in values
    return any(len(value) >= 4 and found.id.startswith(value) for value in values)
