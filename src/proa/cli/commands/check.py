"""`proa system check`: look for damage in everything stored, and repair it."""

from __future__ import annotations

from proa.cli.options import Command
from proa.cli.output import emit, note
from proa.cli.terminal import is_terminal
from proa.client.caller import Caller, json_lines
from proa.client.endpoint import locate
from proa.client.failures import stream_failure
from proa.client.http import query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["CHECK"]

ROWS: tuple[Row, ...] = (
    ("format", "", "text", "string", "Format each problem: json, or a Go template"),
    ("quick", "", "flag", "", "Leave out what reads all bytes: blobs and layers"),
    ("repair", "r", "flag", "", "Put right what can be fetched, unpacked or written again"),
)


def _text(problem: dict[str, Any]) -> str:
    lines = [f"{problem['kind']} {problem['subject']}: {problem['detail']}"]
    if affected := problem.get("affected"):
        lines.append(f"    affects: {', '.join(affected)}")
    if repaired := problem.get("repaired"):
        lines.append(f"    repaired: {repaired}")
    elif hint := problem.get("hint"):
        lines.append(f"    not repaired: {hint}")
    return "\n".join(lines)


def _act(settings: Settings, options: Options, _: list[str]) -> int:
    target = f"/proa/v1/check{query(repair=options.flag('repair'), quick=options.flag('quick'))}"
    caller = Caller(locate(settings.host))
    headers: tuple[tuple[str, str], ...] = ()
    if options.flag("repair"):
        from proa.client.credentials import headers_of_places

        headers = headers_of_places(caller.call("GET", "/proa/v1/repositories")["Repositories"])
    connection = caller.open("POST", target, headers=headers)
    template = None
    if options.given("format"):
        from proa.cli.template import Template

        text = options.text("format")
        template = Template("{{json .}}" if text == "json" else text)
    found = left = 0
    shown = ""
    for record in json_lines(connection):
        error = stream_failure(record)
        if error is not None:
            raise error
        aux = record.get("aux")
        if aux is None:
            if is_terminal(2) and record.get("id") != shown:
                shown = str(record.get("id"))
                note(f"checking {shown} …")
        elif "kind" in aux:
            emit((template.render(aux) if template else _text(aux)) + "\n")
        else:
            found, left = aux["Found"], aux["Left"]
    if template is None:
        tail = f", {found - left} repaired" if found and options.flag("repair") else ""
        emit(f"{found} problem{'' if found == 1 else 's'} found{tail}\n")
    return 1 if left else 0


CHECK = Command("[OPTIONS]", "Check everything stored for damage, and repair it", ROWS, _act, most=0)
