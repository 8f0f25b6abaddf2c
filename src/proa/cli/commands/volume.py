"""`proa volume create|ls|rm`."""

from __future__ import annotations

from proa.cli.filters import filters
from proa.cli.many import for_each
from proa.cli.options import Command
from proa.cli.output import emit, show_rows
from proa.cli.values import key_values
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import query, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Row, Settings

__all__ = ["CREATE", "LS", "RM"]

CREATE_ROWS: tuple[Row, ...] = (
    ("driver", "d", "text", "string", 'Specify volume driver name (default "local")'),
    ("label", "", "list", "list", "Set metadata for a volume"),
    ("opt", "o", "list", "map", "Set driver specific options"),
)
LS_ROWS: tuple[Row, ...] = (
    ("filter", "f", "list", "filter", 'Provide filter values (e.g. "dangling=true")'),
    ("format", "", "text", "string", "Format output: table, json, or a Go template"),
    ("quiet", "q", "flag", "", "Only display volume names"),
)


def _create(settings: Settings, options: Options, words: list[str]) -> int:
    document = {
        "Name": words[0] if words else "",
        "Driver": options.text("driver", "local"),
        "Labels": key_values(options.texts("label"), "label"),
        "DriverOpts": key_values(options.texts("opt"), "opt"),
    }
    emit(f"{Caller(locate(settings.host)).call('POST', '/volumes/create', document)['Name']}\n")
    return 0


def _ls(settings: Settings, options: Options, _: list[str]) -> int:
    reply = Caller(locate(settings.host)).call("GET", f"/volumes{query(filters=filters(options.texts('filter')))}")
    rows = [
        {
            "Driver": r["Driver"],
            "Name": r["Name"],
            "Scope": r["Scope"],
            "Mountpoint": r["Mountpoint"],
            "Labels": ",".join([f"{k}={v}" for k, v in sorted((r.get("Labels") or {}).items())]),
        }
        for r in sorted(reply.get("Volumes") or (), key=lambda r: str(r["Name"]))
    ]
    columns = (("Driver", "DRIVER"), ("Name", "VOLUME NAME"))
    show_rows(rows, columns, template=options.text("format"), quiet="Name" if options.flag("quiet") else "")
    return 0


def _rm(settings: Settings, options: Options, words: list[str]) -> int:
    tail = query(force=options.flag("force"))
    return for_each(settings, words, lambda name: ("DELETE", f"/volumes/{quote(name)}{tail}"))


CREATE = Command("[OPTIONS] [VOLUME]", "Create a volume", CREATE_ROWS, _create, most=1)
LS = Command("[OPTIONS]", "List volumes", LS_ROWS, _ls, most=0)
RM = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    "Remove one or more volumes",
    (("force", "f", "flag", "", "Force the removal of one or more volumes"),),
    _rm,
    least=1,
)
