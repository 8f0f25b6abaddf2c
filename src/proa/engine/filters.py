"""Filters of lists: `{"status": ["running"], "label": ["a=b"]}` to a predicate."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from proa.engine.clock import parse_rfc3339
from proa.engine.types import Container
from proa.errors import Invalid

if TYPE_CHECKING:
    from proa.engine.catalog import Catalog

STATUSES = frozenset({"created", "running", "paused", "restarting", "removing", "exited", "dead"})

HEALTHS = ("starting", "healthy", "unhealthy", "none")


def match_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """True when every `key` or `key=value` holds."""
    for item in wanted:
        key, equals, value = item.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _named(patterns: Sequence[str]) -> Callable[[Container], bool]:
    try:
        found = [re.compile(pattern).search for pattern in patterns]
    except re.error as e:
        raise Invalid(f"invalid name filter {e.pattern!r}: {e}", code="filter-invalid") from None
    return lambda r: any(search("/" + r.name) or search(r.name) for search in found)


Test = Callable[[Container], bool]


def compile_filters(
    filters: Mapping[str, Sequence[str]], catalog: Catalog, stands_on: Callable[[str], Test]
) -> Callable[[Container], bool]:
    """A predicate for container records. stands_on: the test for an image as `ancestor`.

    Raises Invalid for a filter or value that does not exist.
    """
    tests: list[Callable[[Container], bool]] = []
    for key, values in filters.items():
        if not values:
            continue
        if key == "status":
            if bad := set(values) - STATUSES:
                raise Invalid(f"invalid filter 'status={min(bad)}'", code="filter-invalid")
            tests.append(lambda r, v=values: r.state.status in v)  # type: ignore[misc]
        elif key == "label":
            tests.append(lambda r, v=values: match_labels(r.labels, v))  # type: ignore[misc]
        elif key == "label!":
            tests.append(lambda r, v=values: not any(match_labels(r.labels, [x]) for x in v))  # type: ignore[misc]
        elif key == "name":
            tests.append(_named(values))
        elif key == "id":
            tests.append(lambda r, v=values: any(r.id.startswith(x) for x in v))  # type: ignore[misc]
        elif key == "exited":
            codes = {_exit_code(value) for value in values}
            tests.append(lambda r, v=codes: r.state.status == "exited" and r.state.exit_code in v)  # type: ignore[misc]
        elif key == "ancestor":
            images = [stands_on(value) for value in values]
            tests.append(lambda r, v=images: any(test(r) for test in v))  # type: ignore[misc]
        elif key == "network":
            tests.append(lambda r, v=values: _on_network(r, v))  # type: ignore[misc]
        elif key == "volume":
            tests.append(lambda r, v=values: any(m.name in v or m.destination in v for m in r.mounts))  # type: ignore[misc]
        elif key in ("before", "since"):
            created = catalog.find(values[0]).record.created
            if key == "before":
                tests.append(lambda r, c=created: r.created < c)  # type: ignore[misc]
            else:
                tests.append(lambda r, c=created: r.created > c)  # type: ignore[misc]
        elif key == "until":
            limit = until_time(values[0])
            tests.append(lambda r, t=limit: parse_rfc3339(r.created) < t)  # type: ignore[misc]
        elif key in ("health", "isolation", "publish", "expose", "is-task"):
            tests.append(_PLAIN[key](values))
        else:
            raise Invalid(f"invalid filter '{key}'", code="filter-invalid")
    return lambda record: all(test(record) for test in tests)


def until_time(text: str) -> float:
    """The time a filter means, in seconds since the epoch: a timestamp, RFC 3339, or how long ago (`1h30m`).

    Raises Invalid for what is no time.
    """
    if re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", text, re.ASCII):
        return float(text)
    if text and (match := re.fullmatch(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?", text, re.ASCII)):
        h, m, s = (int(x or 0) for x in match.groups())
        return time.time() - (h * 3600 + m * 60 + s)
    if when := parse_rfc3339(text):
        return when
    raise Invalid(f"invalid time {text[:80]!r}: want a timestamp, RFC 3339 or how long ago, such as 24h30m")


def _exit_code(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", text, re.ASCII):
        raise Invalid(f"invalid filter 'exited={text[:60]}': not a whole number", code="filter-invalid")
    return int(text)


def _on_network(record: Container, wanted: Sequence[str]) -> bool:
    """By name or id; one that has never run is on the networks it was created for."""
    if any(e.network in wanted or e.network_id in wanted for e in record.endpoints):
        return True
    mode = record.host.network_mode
    asked = {"bridge" if mode in ("", "default") else mode, *record.networks}
    return not record.endpoints and bool(asked & set(wanted))


def _health(values: Sequence[str]) -> Callable[[Container], bool]:
    for value in values:
        if value not in HEALTHS:
            raise Invalid(f"unrecognized filter value for health: {value[:60]}", code="filter-invalid")
    return lambda r: (r.state.health.status if r.state.health else "none") in values


def _ports(values: Sequence[str]) -> set[str]:
    """`80`, `80/udp`, `8000-8010/tcp` as a set of `port/protocol`. Raises Invalid."""
    out = set()
    for value in values:
        ports, _, protocol = value.partition("/")
        first, mark, last = ports.partition("-")
        ends = (first, last if mark else first)
        if not all(re.fullmatch(r"[0-9]{1,5}", e, re.ASCII) and int(e) < 65536 for e in ends):
            raise Invalid(f"invalid port in filter: {value[:60]}", code="filter-invalid")
        out |= {f"{port}/{protocol or 'tcp'}" for port in range(int(ends[0]), int(ends[1]) + 1)}
    return out


def _published(values: Sequence[str]) -> Callable[[Container], bool]:
    wanted = _ports(values)
    return lambda r: any(
        p in wanted or any(f"{b.host_port}/{p.partition('/')[2]}" in wanted for b in bs) for p, bs in r.ports.items()
    )


def _exposed(values: Sequence[str]) -> Callable[[Container], bool]:
    wanted = _ports(values)
    return lambda r: bool(wanted & {*(r.config.exposed_ports or {}), *r.ports})


def _everything(values: Sequence[str]) -> Callable[[Container], bool]:
    return lambda _: "false" in values or "default" in values


_PLAIN: dict[str, Callable[[Sequence[str]], Callable[[Container], bool]]] = {
    "health": _health,
    "publish": _published,
    "expose": _exposed,
    "isolation": _everything,
    "is-task": _everything,
}
