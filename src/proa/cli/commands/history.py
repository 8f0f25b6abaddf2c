"""`proa history`."""

from __future__ import annotations

from proa.cli.humanise import age, decimal_size, parse_time, short_id
from proa.cli.options import Command
from proa.cli.output import show_rows
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import query, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["HISTORY"]

ROWS: tuple[Row, ...] = (
    ("format", "", "text", "string", "Format output: table, json, or a Go template"),
    ("human", "H", "flag", "", "Print sizes and dates in human readable format (default true)"),
    ("no-trunc", "", "flag", "", "Don't truncate output"),
    ("platform", "", "text", "string", 'Show history for the given platform ("os/arch[/variant]")'),
    ("quiet", "q", "flag", "", "Only show image IDs"),
)
COLUMNS = (
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
)


def _created_at(created: Any) -> float:
    return parse_time(created) if isinstance(created, str) else float(created)


def _act(settings: Settings, options: Options, words: list[str]) -> int:
    import time

    full, human = options.flag("no-trunc"), options.flag("human", default=True)
    target = f"/images/{quote(words[0])}/history{query(platform=options.text('platform'))}"
    rows = []
    for record in Caller(locate(settings.host)).call("GET", target):
        created = _created_at(record["Created"])
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(created))
        stamp = f"{stamp[:-2]}:{stamp[-2:]}".replace("+00:00", "Z")
        by = str(record["CreatedBy"]).replace("\t", " ")
        rows.append(
            {
                "ID": record["Id"] if full or record["Id"] == "<missing>" else short_id(record["Id"]),
                "CreatedSince": age(created) if human else stamp,
                "CreatedAt": stamp,
                "CreatedBy": by if full or len(by) <= 45 else by[:44] + "…",
                "Size": decimal_size(record["Size"]) if human else str(record["Size"]),
                "Comment": record.get("Comment") or "",
            }
        )
    quiet = "ID" if options.flag("quiet") else ""
    columns = COLUMNS if human else (COLUMNS[0], ("CreatedAt", "CREATED AT"), *COLUMNS[2:])
    show_rows(rows, columns, template=options.text("format"), quiet=quiet, headers={"CreatedAt": "CREATED AT"})
    return 0


HISTORY = Command("[OPTIONS] IMAGE", "Show the history of an image", ROWS, _act, least=1, most=1)
