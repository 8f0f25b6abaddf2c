"""`proa load`, `proa save`, `proa import`: images as archives."""

from __future__ import annotations

import os

from proa.cli.options import Command
from proa.cli.progress import show_progress
from proa.cli.session import put
from proa.cli.terminal import emit, is_terminal
from proa.client.caller import Caller, json_lines
from proa.client.endpoint import locate
from proa.client.failures import stream_failure
from proa.client.http import query, quote
from proa.client.names import split_tag
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from proa.cli.options import Options, Row, Settings
    from proa.client.connection import Connection

__all__ = ["IMPORT", "LOAD", "SAVE", "receive"]

_PIECE = 1 << 20

LOAD_ROWS: tuple[Row, ...] = (
    ("input", "i", "text", "string", "Read from tar archive file, instead of STDIN"),
    ("platform", "", "text", "string", 'Load only the given platform of a multi-platform image ("os/arch[/variant]")'),
    ("quiet", "q", "flag", "", "Suppress the load output"),
)
SAVE_ROWS: tuple[Row, ...] = (
    ("output", "o", "text", "string", "Write to a file, instead of STDOUT"),
    ("platform", "", "text", "string", 'Save only the given platform of a multi-platform image ("os/arch[/variant]")'),
)
IMPORT_ROWS: tuple[Row, ...] = (
    ("change", "c", "list", "list", "Apply Dockerfile instruction to the created image"),
    ("message", "m", "text", "string", "Set commit message for imported image"),
    ("platform", "", "text", "string", "Set platform if server is multi-platform capable"),
)


def _pieces(path: str) -> Iterator[bytes]:
    """A file's bytes; an empty path or `-` is stdin. Raises Invalid when it cannot be read."""
    try:
        fd = 0 if path in ("", "-") else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while data := os.read(fd, _PIECE):
                yield data
        finally:
            if fd:
                os.close(fd)
    except OSError as error:
        raise Invalid(
            f"cannot read {path or 'stdin'}: {error.strerror}", code="unreadable-file", subject=path
        ) from None


def _readable(path: str) -> None:
    """Complain before the engine is bothered. Raises Invalid."""
    if path and path != "-" and not os.access(path, os.R_OK):
        why = "permission denied" if os.path.exists(path) else "no such file or directory"
        raise Invalid(f"cannot read {path}: {why}", code="unreadable-file", subject=path)


def _load(settings: Settings, options: Options, _: list[str]) -> int:
    path = options.text("input")
    if not path and is_terminal(0):
        raise Invalid(
            "requested load from stdin, but stdin is a terminal", code="stdin-is-terminal", hint="use -i FILE"
        )
    _readable(path)
    caller = Caller(locate(settings.host))
    quiet = options.flag("quiet")
    connection = caller.upload(
        "POST", f"/images/load{query(quiet=quiet, platform=options.text('platform'))}", _pieces(path)
    )
    show_progress(json_lines(connection), 1)
    return 0


def _save(settings: Settings, options: Options, words: list[str]) -> int:
    path = options.text("output")
    if not path and is_terminal(1):
        raise Invalid(
            "cowardly refusing to save to a terminal", code="stdout-is-terminal", hint="use -o FILE or redirect"
        )
    caller = Caller(locate(settings.host))
    names = "&".join([f"names={quote(word)}" for word in words])
    platform = options.text("platform")
    tail = f"&platform={quote(platform)}" if platform else ""
    connection = caller.open("GET", f"/images/get?{names}{tail}")
    receive(connection, path)
    return 0


def receive(connection: Connection, path: str) -> None:
    """Write a reply to a file, replaced when all of it has come, or to stdout. Raises Invalid."""
    if not path:
        while data := connection.read():
            put(1, data)
        return
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device
        temporary = path
    try:
        with open(temporary, "wb") as file:
            while data := connection.read():
                file.write(data)
        if temporary != path:
            os.replace(temporary, path)
    except OSError as error:
        raise Invalid(f"cannot write {path}: {error.strerror}", code="unwritable-file", subject=path) from None
    finally:
        if temporary != path and os.path.lexists(temporary):
            os.unlink(temporary)


def _import(settings: Settings, options: Options, words: list[str]) -> int:
    source = words[0]
    repository, tag = split_tag(words[1]) if len(words) > 1 else ("", "")
    changes = "".join([f"&changes={quote(change)}" for change in options.texts("change")])
    common = {"repo": repository, "tag": tag, "message": options.text("message"), "platform": options.text("platform")}
    common["sourceDateEpoch"] = os.environ.get("SOURCE_DATE_EPOCH", "")
    caller = Caller(locate(settings.host))
    if "://" in source:
        connection = caller.open("POST", f"/images/create{query(fromSrc=source, **common)}{changes}")
    else:
        _readable(source)
        connection = caller.upload("POST", f"/images/create{query(fromSrc='-', **common)}{changes}", _pieces(source))
    last = ""
    for record in _followed(connection):
        last = record or last
    emit(f"{last}\n")
    return 0


def _followed(connection: Connection) -> Iterator[str]:
    """The statuses of an import; the last one is the image's id. Raises the failure the engine reports."""
    for record in json_lines(connection):
        error = stream_failure(record)
        if error is not None:
            raise error
        yield str(record.get("status") or "")


LOAD = Command("[OPTIONS]", "Load an image from a tar archive or STDIN", LOAD_ROWS, _load, most=0)
SAVE = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    SAVE_ROWS,
    _save,
    least=1,
)
IMPORT = Command(
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create an image",
    IMPORT_ROWS,
    _import,
    least=1,
    most=2,
)
