"""`proa artifact add|ls|inspect|extract|pull|push|rm`: files of any kind under names, as OCI artifacts."""

from __future__ import annotations

import os

from proa.cli.commands.archive import receive
from proa.cli.many import for_each
from proa.cli.options import Command, UsageError
from proa.cli.output import emit, show_rows
from proa.client.caller import Caller, json_lines
from proa.client.endpoint import locate
from proa.client.failures import stream_failure
from proa.client.http import query, quote
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from proa.cli.options import Options, Row, Settings

__all__ = ["ADD", "EXTRACT", "INSPECT", "LS", "PULL", "PUSH", "RM"]

ADD_ROWS: tuple[Row, ...] = (
    ("annotation", "", "list", "key=value", "Set an annotation on the files"),
    ("append", "a", "flag", "", "Add files to an existing artifact"),
    ("file-type", "", "text", "string", "Media type of the files (default application/octet-stream)"),
    ("type", "", "text", "string", "Artifact type"),
)
LS_ROWS: tuple[Row, ...] = (
    ("format", "", "text", "string", "Format output: table, json, or a Go template"),
    ("no-trunc", "", "flag", "", "Don't truncate output"),
    ("quiet", "q", "flag", "", "Only show digests"),
)
INSPECT_ROWS: tuple[Row, ...] = (("raw", "", "flag", "", "Show the manifest, byte for byte"),)
EXTRACT_ROWS: tuple[Row, ...] = (("title", "", "text", "string", "Only the file of this title or digest"),)
QUIET: tuple[Row, ...] = (("quiet", "q", "flag", "", "Suppress verbose output"),)
COLUMNS = (("Name", "NAME"), ("Type", "TYPE"), ("Digest", "DIGEST"), ("Files", "FILES"), ("Size", "SIZE"))
_PIECE = 1 << 20


def _file(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb", buffering=0) as file:
            while data := file.read(_PIECE):
                yield data
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}", code="unreadable-file", subject=path) from None


def _add(settings: Settings, options: Options, words: list[str]) -> int:
    caller = Caller(locate(settings.host))
    for path in words[1:]:
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            raise Invalid(f"cannot read {path}: it is no file one may read", code="unreadable-file", subject=path)
    notes = "".join([f"&annotation={quote(text)}" for text in options.texts("annotation")])
    digest = ""
    for number, path in enumerate(words[1:]):
        asked = query(
            title=os.path.basename(path),
            type=options.text("type"),
            fileType=options.text("file-type"),
            append=options.flag("append") or number > 0,
        )
        connection = caller.upload("POST", f"/proa/v1/artifacts/{quote(words[0])}/add{asked}{notes}", _file(path))
        for record in json_lines(connection):
            if (error := stream_failure(record)) is not None:
                raise error
            digest = str(record.get("status") or digest)
    emit(digest + "\n")
    return 0


def _ls(settings: Settings, options: Options, _: list[str]) -> int:
    from proa.cli.humanise import decimal_size, short_id

    full = options.flag("no-trunc")
    rows = [
        {
            "Name": artifact["Name"],
            "Type": artifact["Type"],
            "Digest": artifact["Digest"] if full else short_id(artifact["Digest"]),
            "Files": str(len(artifact["Files"])),
            "Size": decimal_size(artifact["Size"]),
        }
        for artifact in Caller(locate(settings.host)).call("GET", "/proa/v1/artifacts")
    ]
    quiet = "Digest" if options.flag("quiet") else ""
    show_rows(rows, COLUMNS, template=options.text("format"), quiet=quiet)
    return 0


def _inspect(settings: Settings, options: Options, words: list[str]) -> int:
    import json

    raw = options.flag("raw")
    body = Caller(locate(settings.host)).fetch("GET", f"/proa/v1/artifacts/{quote(words[0])}{query(raw=raw)}")
    emit(body.decode() + "\n" if raw else json.dumps(json.loads(body), indent=4) + "\n")
    return 0


def _extract(settings: Settings, options: Options, words: list[str]) -> int:
    caller = Caller(locate(settings.host))
    name, target = words[0], words[1] if len(words) > 1 else ""
    title = options.text("title")
    if not target or not os.path.isdir(target):
        receive(caller.open("GET", f"/proa/v1/artifacts/{quote(name)}/file{query(title=title)}"), target)
        return 0
    found = caller.call("GET", f"/proa/v1/artifacts/{quote(name)}")["Files"]
    chosen = [f for f in found if not title or title in (f["Title"], f["Digest"])]
    if not chosen:
        raise UsageError(f"{name} has no file {title}", 1)
    if len({f["Title"] for f in chosen}) != len(chosen):
        raise Invalid(f"{name} has several files of one title: choose by digest with --title", code="artifact-title")
    for file in chosen:
        if file["Title"] != os.path.basename(file["Title"]) or file["Title"] in ("", ".", ".."):
            raise Invalid(f"{file['Title']!r} is no file name", code="artifact-title")
        target_file = os.path.join(target, file["Title"])
        receive(caller.open("GET", f"/proa/v1/artifacts/{quote(name)}/file{query(title=file['Digest'])}"), target_file)
    return 0


def _move(settings: Settings, options: Options, words: list[str], verb: str) -> int:
    from proa.cli.commands.registry import auth_of
    from proa.cli.progress import show_progress

    caller = Caller(locate(settings.host))
    target = f"/proa/v1/artifacts/{quote(words[0])}/{verb}"
    connection = caller.open("POST", target, headers=(auth_of(caller, words[0]),))
    aux = show_progress(json_lines(connection), 2, quiet=options.flag("quiet"))
    emit(f"{aux.get('Digest', '')}\n")
    return 0


def _pull(settings: Settings, options: Options, words: list[str]) -> int:
    return _move(settings, options, words, "pull")


def _push(settings: Settings, options: Options, words: list[str]) -> int:
    return _move(settings, options, words, "push")


def _rm(settings: Settings, _: Options, words: list[str]) -> int:
    return for_each(settings, words, lambda name: ("DELETE", f"/proa/v1/artifacts/{quote(name)}"))


ADD = Command("[OPTIONS] NAME FILE [FILE...]", "Store files as an OCI artifact", ADD_ROWS, _add, least=2)
LS = Command("[OPTIONS]", "List artifacts", LS_ROWS, _ls, most=0)
INSPECT = Command(
    "[OPTIONS] NAME", "Display an artifact's type, files and annotations", INSPECT_ROWS, _inspect, least=1, most=1
)
EXTRACT = Command(
    "[OPTIONS] NAME [DIRECTORY|FILE]",
    "Write the files of an artifact to a directory or standard output",
    EXTRACT_ROWS,
    _extract,
    least=1,
    most=2,
)
PULL = Command("[OPTIONS] NAME", "Download an artifact from a registry", QUIET, _pull, least=1, most=1)
PUSH = Command("[OPTIONS] NAME", "Upload an artifact to a registry", QUIET, _push, least=1, most=1)
RM = Command("NAME [NAME...]", "Remove one or more artifacts", (), _rm, least=1)
