"""Commands about what registries have: search, tags, copy, `image inspect --remote`, `rmi --remote`."""

from __future__ import annotations

import sys

from proa.cli.options import Command
from proa.cli.terminal import emit
from proa.client.caller import Caller, json_lines
from proa.client.credentials import credentials_for, header_of
from proa.client.endpoint import locate
from proa.client.http import query
from proa.client.names import has_registry, registry_of
from proa.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["COPY", "SEARCH", "TAGS", "auth_of", "delete_remote", "inspect_remote"]

SEARCH_ROWS: tuple[Row, ...] = (
    ("filter", "f", "list", "filter", "Filter output based on conditions provided"),
    ("format", "", "text", "string", "Format output: table, json, or a Go template"),
    ("limit", "", "int", "int", "Max number of search results"),
    ("no-trunc", "", "flag", "", "Don't truncate output"),
)
COPY_ROWS: tuple[Row, ...] = (
    ("platform", "", "text", "string", 'Copy only this platform of a multi-platform image ("os/arch[/variant]")'),
    ("quiet", "q", "flag", "", "Suppress verbose output"),
)
SEARCH_COLUMNS = (("Name", "NAME"), ("Description", "DESCRIPTION"), ("StarCount", "STARS"), ("IsOfficial", "OFFICIAL"))
_DESCRIPTION = 45


def auth_of(caller: Caller, image: str, name: str = "X-Registry-Auth") -> tuple[str, str]:
    """The header for an image's registry; which one a short name means, the engine knows.

    Raises Invalid when the configuration cannot be read.
    """
    if not has_registry(image):
        try:
            image = str(caller.call("GET", f"/proa/v1/reference{query(name=image)}")["Name"])
        except NotFound:
            pass  # another engine, which means Docker Hub
    return header_of(credentials_for(registry_of(image), image), name)


def _search(settings: Settings, options: Options, words: list[str]) -> int:
    from proa.cli.filters import filters
    from proa.cli.output import show_rows

    caller = Caller(locate(settings.host))
    term = words[0]
    asked = query(term=term, limit=options.number("limit") or None, filters=filters(options.texts("filter")))
    image = term if has_registry(term) else "x"
    found = caller.call("GET", f"/images/search{asked}", headers=(auth_of(caller, image),))
    rows = []
    for item in found or ():
        description = " ".join(str(item.get("description") or "").split())
        if not options.flag("no-trunc") and len(description) > _DESCRIPTION:
            description = description[: _DESCRIPTION - 1] + "…"
        rows.append(
            {
                "Name": item["name"],
                "Description": description,
                "StarCount": str(item.get("star_count") or 0),
                "IsOfficial": "[OK]" if item.get("is_official") else "",
                "IsAutomated": "[OK]" if item.get("is_automated") else "",
            }
        )
    show_rows(rows, SEARCH_COLUMNS, template=options.text("format"), headers={"IsAutomated": "AUTOMATED"})
    return 0


def _tags(settings: Settings, _: Options, words: list[str]) -> int:
    caller = Caller(locate(settings.host))
    found = caller.call("GET", f"/proa/v1/registry/tags{query(name=words[0])}", headers=(auth_of(caller, words[0]),))
    emit("".join([f"{tag}\n" for tag in found["Tags"]]))
    return 0


def _copy(settings: Settings, options: Options, words: list[str]) -> int:
    from proa.cli.progress import show_progress

    source, destination = words
    caller = Caller(locate(settings.host))
    headers = (auth_of(caller, source, "X-Proa-Source-Auth"), auth_of(caller, destination))
    asked = {"from": source, "to": destination, "platform": options.text("platform")}
    connection = caller.open("POST", f"/proa/v1/registry/copy{query(**asked)}", headers=headers)
    copied = show_progress(json_lines(connection), 1, quiet=options.flag("quiet"))
    if options.flag("quiet"):
        emit(f"{copied.get('Digest', '')}\n")
    return 0


def inspect_remote(caller: Caller, name: str, platform: str) -> Any:
    """What a registry has under a name. Raises NotFound, Unauthorized, …"""
    target = f"/proa/v1/registry/image{query(name=name, platform=platform)}"
    return caller.call("GET", target, headers=(auth_of(caller, name),))


def show_raw(caller: Caller, names: list[str]) -> int:
    """Write the bytes of what names in registries point to, exactly as they are there."""
    for name in names:
        target = f"/proa/v1/registry/image{query(name=name, raw=True)}"
        sys.stdout.buffer.write(caller.fetch("GET", target, headers=(auth_of(caller, name),)))
    sys.stdout.flush()
    return 0


def delete_remote(settings: Settings, names: list[str]) -> int:
    """Delete names in registries, each if it can be; the exit status."""
    from proa.cli.failures import complain
    from proa.errors import ProaError

    caller = Caller(locate(settings.host))
    status = 0
    for name in names:
        target = f"/proa/v1/registry/image{query(name=name)}"
        try:
            caller.call("DELETE", target, headers=(auth_of(caller, name),))
            emit(f"Deleted: {name}\n")
        except ProaError as error:
            complain(error.message, error.hint)
            status = 1
    return status


SEARCH = Command("[OPTIONS] [REGISTRY/]TERM", "Search a registry for images", SEARCH_ROWS, _search, least=1, most=1)
TAGS = Command("REPOSITORY", "List the tags of a repository in its registry", (), _tags, least=1, most=1)
COPY = Command(
    "[OPTIONS] SOURCE DESTINATION",
    "Copy an image from registry to registry without storing it",
    COPY_ROWS,
    _copy,
    least=2,
    most=2,
)
