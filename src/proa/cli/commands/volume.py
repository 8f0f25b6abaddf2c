"""`proa volume create|ls|rm|export|import|clone|snapshot`."""

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
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["CLONE", "CREATE", "EXPORT", "IMPORT", "LS", "RM", "SNAPSHOT"]

CREATE_ROWS: tuple[Row, ...] = (
    ("driver", "d", "text", "string", 'Specify volume driver name (default "local")'),
    ("gid", "", "text", "string", "Group of the volume's root"),
    ("label", "", "list", "list", "Set metadata for a volume"),
    ("mode", "", "text", "string", "Permissions of the volume's root, octal"),
    ("opt", "o", "list", "map", "Set driver specific options"),
    ("size", "", "text", "bytes", "Limit the volume to this size"),
    ("uid", "", "text", "string", "Owner of the volume's root"),
)
LS_ROWS: tuple[Row, ...] = (
    ("filter", "f", "list", "filter", 'Provide filter values (e.g. "dangling=true")'),
    ("format", "", "text", "string", "Format output: table, json, or a Go template"),
    ("orphans", "", "flag", "", "Only anonymous volumes whose container is gone, and what they were made for"),
    ("quiet", "q", "flag", "", "Only display volume names"),
)


def _create(settings: Settings, options: Options, words: list[str]) -> int:
    opts = key_values(options.texts("opt"), "opt")
    opts |= {name: options.text(name) for name in ("gid", "mode", "size", "uid") if options.given(name)}
    document = {
        "Name": words[0] if words else "",
        "Driver": options.text("driver", "local"),
        "Labels": key_values(options.texts("label"), "label"),
        "DriverOpts": opts,
    }
    emit(f"{Caller(locate(settings.host)).call('POST', '/volumes/create', document)['Name']}\n")
    return 0


def _ls(settings: Settings, options: Options, _: list[str]) -> int:
    orphans = options.flag("orphans")
    asked = filters(options.texts("filter"), **({"orphan": "true"} if orphans else {}))
    reply = Caller(locate(settings.host)).call("GET", f"/volumes{query(filters=asked)}")
    rows = [
        {
            "Driver": r["Driver"],
            "Name": r["Name"],
            "Scope": r["Scope"],
            "Mountpoint": r["Mountpoint"],
            "Labels": ",".join([f"{k}={v}" for k, v in sorted((r.get("Labels") or {}).items())]),
            "CreatedAt": r["CreatedAt"],
            **_owner(r),
        }
        for r in sorted(reply.get("Volumes") or (), key=lambda r: str(r["Name"]))
    ]
    columns: tuple[tuple[str, str], ...] = (("Driver", "DRIVER"), ("Name", "VOLUME NAME"))
    if orphans:
        titles = (("Container", "CONTAINER"), ("Image", "IMAGE"), ("Path", "PATH"), ("CreatedAt", "CREATED"))
        columns = (columns[1], *titles)
    show_rows(rows, columns, template=options.text("format"), quiet="Name" if options.flag("quiet") else "")
    return 0


def _owner(volume: dict[str, Any]) -> dict[str, str]:
    """For what an anonymous volume was made."""
    owner = (volume.get("Status") or {}).get("Owner") or {}
    return {"Container": owner.get("name", ""), "Image": owner.get("image", ""), "Path": owner.get("path", "")}


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


def _export(settings: Settings, options: Options, words: list[str]) -> int:
    from proa.cli.commands.archive import receive, refuse_terminal

    path = options.text("output")
    refuse_terminal(path)
    connection = Caller(locate(settings.host)).open("GET", f"/proa/v1/volumes/{quote(words[0])}/export")
    receive(connection, path)
    return 0


def _import(settings: Settings, options: Options, words: list[str]) -> int:
    from proa.cli.commands.archive import pieces

    source = pieces(words[1] if len(words) > 1 else "-")
    target = f"/proa/v1/volumes/{quote(words[0])}/import{query(replace=options.flag('replace'))}"
    caller = Caller(locate(settings.host))
    connection = caller.upload("PUT", target, source)
    connection.body()
    emit(f"{words[0]}\n")
    return 0


def _clone(settings: Settings, options: Options, words: list[str]) -> int:
    return _copy(settings, words[0], words[1], key_values(options.texts("label"), "label"))


def _snapshot(settings: Settings, options: Options, words: list[str]) -> int:
    from time import gmtime, strftime

    name = words[1] if len(words) > 1 else f"{words[0]}-{strftime('%Y%m%dT%H%M%SZ', gmtime())}"
    labels = {"proa.snapshot-of": words[0], **key_values(options.texts("label"), "label")}
    return _copy(settings, words[0], name, labels)


def _copy(settings: Settings, origin: str, name: str, labels: dict[str, str]) -> int:
    document = {"Name": name, "Labels": labels}
    reply = Caller(locate(settings.host)).call("POST", f"/proa/v1/volumes/{quote(origin)}/clone", document)
    emit(f"{reply['Name']}\n")
    return 0


LABEL: Row = ("label", "", "list", "list", "Set metadata for the new volume")
EXPORT = Command(
    "[OPTIONS] VOLUME",
    "Write what is in a volume as a tar archive",
    (("output", "o", "text", "string", "Write to a file, instead of STDOUT"),),
    _export,
    least=1,
    most=1,
)
IMPORT = Command(
    "[OPTIONS] VOLUME [FILE|-]",
    "Fill a volume from a tar archive",
    (("replace", "", "flag", "", "Replace what is in the volume"),),
    _import,
    least=1,
    most=2,
)
CLONE = Command("[OPTIONS] VOLUME NEW", "Make a copy of a volume", (LABEL,), _clone, least=2, most=2)
SNAPSHOT = Command(
    "[OPTIONS] VOLUME [NAME]", "Keep a copy of a volume under a dated name", (LABEL,), _snapshot, least=1, most=2
)
