"""`proa system socket add|ls|rm`: restricted views of the engine, each at a socket of its own."""

from __future__ import annotations

from proa.cli.options import Command, UsageError
from proa.cli.output import emit, show_rows
from proa.client.caller import Caller
from proa.client.endpoint import locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Row, Settings

__all__ = ["SOCKET"]

_AREAS = "containers, exec, files, images, networks, volumes, system, build, secrets, configs"
ROWS: tuple[Row, ...] = (
    ("allow", "", "list", "areas", f"Only these: {_AREAS}"),
    ("format", "", "text", "string", "Format the list: json, or a Go template"),
    ("label", "", "list", "key=value", "Only containers, networks and volumes with this label, which new ones get"),
    ("owner", "", "text", "user[:group]", "Who may connect besides root (default: nobody)"),
    ("read-only", "", "flag", "", "Look only: no request may change anything"),
)
_COLUMNS = (("Path", "PATH"), ("Scope", "SCOPE"), ("Owner", "OWNER"), ("Clients", "CLIENTS"))


def _socket(settings: Settings, options: Options, words: list[str]) -> int:
    act = {"add": _add, "ls": _list, "list": _list, "rm": _remove, "remove": _remove}.get(words[0])
    if act is None:
        raise UsageError(f"unknown command: proa system socket {words[0]}: add, ls or rm")
    wanted = 0 if act is _list else 1
    if len(words) != wanted + 1:
        raise UsageError(f"'proa system socket {words[0]}' needs {'a path' if wanted else 'no arguments'}", 1)
    return act(Caller(locate(settings.host)), options, words[1:])


def _add(caller: Caller, options: Options, words: list[str]) -> int:
    import os

    labels = {}
    for text in options.texts("label"):
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f'invalid argument "{text}" for "--label" flag: not key=value')
        labels[key] = value
    path = os.path.abspath(words[0])
    areas = [area for text in options.texts("allow") for area in text.split(",") if area]
    scope = {"ReadOnly": options.flag("read-only"), "Labels": labels, "Allow": areas}
    caller.call("POST", "/proa/v1/sockets", {"Path": path, "Owner": options.text("owner"), "Scope": scope})
    emit(f"{path}\n")
    return 0


def _list(caller: Caller, options: Options, _: list[str]) -> int:
    rows = caller.call("GET", "/proa/v1/sockets")
    if options.text("format") not in ("json", "{{json .}}"):
        for row in rows:
            row["Scope"] = _in_words(row["Scope"])
            row["Clients"] = "not served" if row["Clients"] < 0 else row["Clients"]
    show_rows(rows, _COLUMNS, template=options.text("format"))
    return 0


def _in_words(scope: dict[str, object]) -> str:
    labels, areas = scope["Labels"], scope["Allow"]
    assert isinstance(labels, dict)
    assert isinstance(areas, list)
    parts = ["read-only"] if scope["ReadOnly"] else []
    parts += [f"label {key}={value}" for key, value in labels.items()]
    return ", ".join([*parts, *(["allow " + ",".join(areas)] if areas else [])])


def _remove(caller: Caller, _: Options, words: list[str]) -> int:
    import os
    from urllib.parse import quote

    path = os.path.abspath(words[0])
    caller.fetch("DELETE", f"/proa/v1/sockets?path={quote(path, safe='')}")
    emit(f"{path}\n")
    return 0


SOCKET = Command(
    "add|ls|rm [OPTIONS] [PATH]", "Serve a restricted view of the engine at another socket", ROWS, _socket, least=1
)
