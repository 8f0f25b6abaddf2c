"""`proa events`."""

from __future__ import annotations

import time

from proa.cli.filters import filters
from proa.cli.moments import moment
from proa.cli.options import Command
from proa.cli.terminal import emit
from proa.client.caller import Caller, json_lines
from proa.client.endpoint import locate
from proa.client.http import query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["EVENTS"]

ROWS: tuple[Row, ...] = (
    ("filter", "f", "list", "filter", "Filter output based on conditions provided"),
    ("format", "", "text", "string", "Format output: json, or a Go template"),
    ("since", "", "text", "string", "Show all events created since timestamp"),
    ("until", "", "text", "string", "Stream events until this timestamp"),
)


def event_line(event: dict[str, Any]) -> str:
    """`2026-01-31T12:00:00.123456789+00:00 container start 4f… (image=x, name=y)`."""
    nanoseconds = event.get("timeNano") or event["time"] * 1_000_000_000
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    zone = time.strftime("%z", time.localtime(seconds))
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds)) + f".{fraction:09d}{zone[:3]}:{zone[3:]}"
    stamp = stamp.replace("+00:00", "Z") if zone == "+0000" else stamp
    actor = event.get("Actor") or {}
    attributes = ", ".join([f"{k}={v}" for k, v in sorted((actor.get("Attributes") or {}).items())])
    tail = f" ({attributes})" if attributes else ""
    return f"{stamp} {event['Type']} {event['Action']} {actor.get('ID', '')}{tail}"


def _act(settings: Settings, options: Options, _: list[str]) -> int:
    since, until = moment(options.text("since"), "since"), moment(options.text("until"), "until")
    target = query(since=since, until=until, filters=filters(options.texts("filter")))
    template = options.text("format")
    compiled = None
    if template:
        from proa.cli.template import Template

        compiled = Template("{{json .}}" if template == "json" else template)
    connection = Caller(locate(settings.host)).open("GET", f"/events{target}")
    for event in json_lines(connection):
        emit((compiled.render(event) if compiled else event_line(event)) + "\n")
    return 0


EVENTS = Command("[OPTIONS]", "Get real time events from the engine", ROWS, _act, most=0)
