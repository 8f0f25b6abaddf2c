"""`proa load`, `proa save`, `proa import`: images as archives."""

from __future__ import annotations

import os

from proa.cli.options import Command, UsageError
from proa.cli.progress import show_progress
from proa.cli.session import put
from proa.cli.terminal import emit, is_terminal
from proa.client.caller import Caller, json_lines
from proa.client.endpoint import locate
from proa.client.failures import stream_failure
from proa.client.http import query, quote
from proa.client.layouts import Transport, parse_transport
from proa.client.names import split_tag
from proa.client.trees import newest_time, pack
from proa.errors import Conflict, Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from proa.cli.options import Options, Row, Settings
    from proa.client.connection import Connection

__all__ = ["IMPORT", "LOAD", "SAVE", "pieces", "receive", "refuse_terminal"]

_PIECE = 1 << 20
_LOADED = ("Loaded image ID: ", "Loaded image: ")

LOAD_ROWS: tuple[Row, ...] = (
    (
        "input",
        "i",
        "text",
        "string",
        "Read from a tar archive, a layout directory or oci:DIRECTORY:TAG, not STDIN",
    ),
    ("platform", "", "text", "string", 'Load only the given platform of a multi-platform image ("os/arch[/variant]")'),
    ("quiet", "q", "flag", "", "Suppress the load output"),
)
SAVE_ROWS: tuple[Row, ...] = (
    ("compression", "", "text", "string", "Compress the archive: gzip or zstd, and a level if you like (zstd:9)"),
    ("format", "", "text", "string", "docker-archive, oci-archive (one file that is both), oci-dir, or rootfs"),
    ("output", "o", "text", "string", "Write to a file, to oci:DIRECTORY[:TAG], or to a directory, not to STDOUT"),
    ("platform", "", "text", "string", 'Save only the given platform of a multi-platform image ("os/arch[/variant]")'),
)
IMPORT_ROWS: tuple[Row, ...] = (
    ("change", "c", "list", "list", "Apply Dockerfile instruction to the created image"),
    ("message", "m", "text", "string", "Set commit message for imported image"),
    ("platform", "", "text", "string", "Set platform if server is multi-platform capable"),
)


def pieces(path: str) -> Iterator[bytes]:
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
    source = parse_transport(path) or Transport("oci" if os.path.isdir(path) else "docker-archive", path, "")
    _readable(source.path)
    caller = Caller(locate(settings.host))
    quiet = options.flag("quiet")
    target = f"/images/load{query(quiet=quiet, platform=options.text('platform'))}"
    connection = caller.upload("POST", target, _images_in(source))
    show_progress(json_lines(connection), 1)
    return 0


def _images_in(source: Transport) -> Iterator[bytes]:
    if os.path.isdir(source.path):
        from proa.client.sources import pack_directory

        return pack_directory(source.path, source.name)
    return pieces(source.path)


def _save(settings: Settings, options: Options, words: list[str]) -> int:
    path, kind = options.text("output"), options.text("format")
    if kind not in ("", "docker-archive", "oci-archive", "oci-dir", "rootfs"):
        raise UsageError(f"unknown format {kind}: use docker-archive, oci-archive, oci-dir or rootfs", 1)
    if kind == "rootfs":
        return _save_rootfs(settings, options, words, path)
    sink = parse_transport(path) if path else None
    if sink is None and kind == "oci-dir":
        if not path:
            raise UsageError("oci-dir needs a directory: use --output", 1)
        sink = Transport("oci", path, "")
    if sink is not None:
        path = sink.path
    refuse_terminal(path)
    caller = Caller(locate(settings.host))
    names = "&".join([f"names={quote(word)}" for word in words])
    platform = options.text("platform")
    tail = f"&platform={quote(platform)}" if platform else ""
    if (compression := options.text("compression")) and sink is not None and sink.kind == "oci":
        raise UsageError("a layout directory is no archive to be compressed", 1)
    if compression:
        tail += f"&compression={quote(compression)}"
    connection = caller.open("GET", f"/images/get?{names}{tail}")
    if sink is not None and sink.kind == "oci":
        from proa.client.layouts import unpack_layout

        try:
            unpack_layout(lambda _: connection.read(), sink.path, sink.name)
        except OSError as error:
            raise Invalid(f"cannot write {path}: {error.strerror}", code="unwritable-file", subject=path) from None
    else:
        receive(connection, path)
    return 0


def _save_rootfs(settings: Settings, options: Options, words: list[str], path: str) -> int:
    """An image's files: a tar, or into a directory, which the engine fills."""
    if len(words) != 1:
        raise UsageError("the format rootfs takes one image", 1)
    caller = Caller(locate(settings.host))
    target = f"/proa/v1/images/{quote(words[0])}/rootfs"
    platform = options.text("platform")
    if path and (os.path.isdir(path) or path.endswith("/")):
        where = query(directory=os.path.abspath(path), platform=platform)
        caller.fetch("POST", target + where)
        return 0
    if not path and is_terminal(1):
        raise Invalid("cowardly refusing to save to a terminal", code="stdout-is-terminal", hint="use -o FILE")
    receive(caller.open("GET", target + query(platform=platform)), path)
    return 0


def refuse_terminal(path: str) -> None:
    """Raises Invalid when an archive would be shown to a person."""
    if not path and is_terminal(1):
        raise Invalid(
            "cowardly refusing to save to a terminal", code="stdout-is-terminal", hint="use -o FILE or redirect"
        )


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
        data = pack(source, ".", whole=True) if os.path.isdir(source) else pieces(source)
        connection = caller.upload("POST", f"/images/create{query(fromSrc='-', **common)}{changes}", data)
    last = ""
    for record in _followed(connection):
        last = record or last
    emit(f"{last}\n")
    return 0


def bring(caller: Caller, source: Transport) -> str:
    """Load the one image that `oci:DIR:TAG` and its like mean, and return what the engine calls it.

    Raises Conflict when there are several, NotFound.
    """
    _readable(source.path)
    if source.kind == "dir" and not os.path.exists(os.path.join(source.path, "version")):
        # Made when its newest file was, so that the same tree is the same image again.
        target = f"/images/create{query(fromSrc='-', sourceDateEpoch=newest_time(source.path))}"
        return list(_followed(caller.upload("POST", target, pack(source.path, ".", whole=True))))[-1]
    found = []
    for record in json_lines(caller.upload("POST", "/images/load?quiet=1", _images_in(source))):
        if (error := stream_failure(record)) is not None:
            raise error
        text = str(record.get("stream") or "").strip()
        found += [text.removeprefix(mark) for mark in _LOADED if text.startswith(mark)]
    if source.name and source.kind != "oci":
        wanted = source.name if ":" in source.name else f"{source.name}:latest"
        found = [name for name in found if wanted in (name, name.removeprefix("docker.io/library/"))]
        if not found:
            raise NotFound(f"there is no image {source.name} in {source.path}", code="image-not-found")
    if len(set(found)) != 1:
        raise Conflict(
            f"{source.path} has {len(found)} images: choose one",
            code="layout-ambiguous",
            hint=f"append one of: {', '.join(found[:20])}",
        )
    return found[0]


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
