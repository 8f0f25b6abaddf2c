"""`proa cp` and `proa export`: files out of containers and into them."""

from __future__ import annotations

import os

from proa.cli.options import Command
from proa.cli.session import put
from proa.cli.terminal import is_terminal, printable
from proa.client.caller import Caller
from proa.client.copying import Place, link_target, local_destination, local_source, plan, remote
from proa.client.endpoint import locate
from proa.client.http import query, quote
from proa.client.jsonlite import loads
from proa.errors import Invalid, NotFound, ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from proa.cli.options import Options, Row, Settings
    from proa.client.connection import Connection

__all__ = ["COPY", "EXPORT"]

_PIECE = 1 << 20

COPY_ROWS: tuple[Row, ...] = (
    ("archive", "a", "flag", "", "Archive mode (copy all uid/gid information)"),
    ("follow-link", "L", "flag", "", "Always follow symbol link in SRC_PATH"),
    ("quiet", "q", "flag", "", "Suppress progress output during copy. Progress output is automatically suppressed"),
)
EXPORT_ROWS: tuple[Row, ...] = (("output", "o", "text", "string", "Write to a file, instead of STDOUT"),)


def _split(word: str) -> tuple[str, str]:
    """`CONTAINER:PATH` as its two parts; a path of this machine has no container."""
    if word.startswith(("/", "./", "../")) or word in (".", ".."):
        return "", word
    container, colon, path = word.partition(":")
    return (container, path) if colon and container and "/" not in container else ("", word)


class _Remote:
    """One container's files."""

    def __init__(self, caller: Caller, container: str) -> None:
        self.caller = caller
        self.name = container
        self._target = f"/containers/{quote(container)}/archive"

    def stat(self, path: str) -> dict[str, Any]:
        """What is at a path. Raises NotFound."""
        connection = self.caller.open("HEAD", f"{self._target}{query(path=path)}")
        found = self._found(connection)
        self.caller.keep(connection)
        return found

    def read(self, path: str) -> tuple[dict[str, Any], Connection]:
        """What is at a path, and the connection that gives its archive."""
        connection = self.caller.open("GET", f"{self._target}{query(path=path)}")
        return self._found(connection), connection

    def write(self, path: str, pieces: Iterator[bytes], *, own: bool) -> None:
        """Place an archive in the directory at a path."""
        target = f"{self._target}{query(path=path, noOverwriteDirNonDir=True, copyUIDGID=own)}"
        connection = self.caller.upload("PUT", target, pieces)
        connection.body()
        connection.close()

    @staticmethod
    def _found(connection: Connection) -> dict[str, Any]:
        from base64 import b64decode

        found = loads(b64decode(connection.head().headers.get("x-docker-container-path-stat", "")))
        assert isinstance(found, dict)
        return found

    def place(self, path: str) -> Place:
        """A destination: a link is followed, a path that cannot be looked at is taken as not there."""
        if not path.startswith("/"):
            path = "/" + path
        try:
            found: dict[str, Any] | None = self.stat(path)
            assert found is not None
            leads = link_target(path, found)
            if leads != path:
                path, found = leads, None
                found = self.stat(path)
        except NotFound as error:
            if error.code == "container-not-found":
                raise
            found = None
        except ProaError:
            found = None
        return remote(path, found)


def _chunks(connection: Connection) -> Iterator[bytes]:
    while data := connection.read():
        yield data


def _stdin() -> Iterator[bytes]:
    while data := os.read(0, _PIECE):
        yield data


def _say(text: str) -> None:
    put(2, f"{printable(text, 2)}\n".encode("utf-8", "surrogateescape"))


def _counted(pieces: Iterator[bytes], count: list[int]) -> Iterator[bytes]:
    for piece in pieces:
        count[0] += len(piece)
        yield piece


def _copy_in(files: _Remote, source: str, path: str, options: Options, count: list[int]) -> None:
    destination = files.place(path)
    own = options.flag("archive")
    if source == "-":
        if not destination.directory:
            raise Invalid(f'destination "{files.name}:{path}" must be a directory', code="no-directory", subject=path)
        files.write(destination.path, _counted(_stdin(), count), own=own)
        return
    from proa.client.trees import pack

    place = local_source(source, follow=options.flag("follow-link"))
    directory, name = plan(place, destination)
    files.write(directory, _counted(pack(place.path, name), count), own=own)


def _copy_out(files: _Remote, path: str, target: str, options: Options, count: list[int]) -> None:
    if not path.startswith("/"):
        path = "/" + path
    if target == "-" and is_terminal(1):
        raise Invalid("cowardly refusing to copy an archive to a terminal", code="stdout-is-terminal")
    destination = None if target == "-" else local_destination(target)
    name = ""
    if options.flag("follow-link"):
        leads = link_target(path, files.stat(path))
        if leads != path:
            name, path = path.rstrip("/").rpartition("/")[2], leads
    found, connection = files.read(path)
    if destination is None:
        for data in _counted(_chunks(connection), count):
            put(1, data)
        return
    from proa.client.trees import unpack

    source = Place(path, exists=True, directory=bool(found["mode"] & 1 << 31), name=name)
    directory, wanted = plan(source, destination)
    rename = None if wanted in (".", "/") else (str(found["name"]), wanted)
    if not os.path.isdir(directory):
        raise NotFound("no such directory", code="directory-missing", subject=directory)
    unpack(
        _counted(_chunks(connection), count),
        directory,
        rename=rename,
        keep_owner=options.flag("archive"),
        skipped=lambda name: _say(f"proa: {name}: devices are not copied out of containers"),
    )


def _act(settings: Settings, options: Options, words: list[str]) -> int:
    (from_container, source), (to_container, target) = _split(words[0]), _split(words[1])
    if not source or not target:
        raise Invalid("source and destination can not be empty", code="path-empty")
    if from_container and to_container:
        raise Invalid("copying between containers is not supported", code="two-containers")
    if not (from_container or to_container):
        raise Invalid("must specify at least one container source", code="no-container")
    files = _Remote(Caller(locate(settings.host)), from_container or to_container)
    count = [0]
    try:
        if to_container:
            _copy_in(files, source, target, options, count)
        else:
            _copy_out(files, source, target, options, count)
    except OSError as error:
        raise Invalid(f"cannot copy {error.filename or ''}: {error.strerror}", code="copy-failed") from None
    if is_terminal(1) and not options.flag("quiet") and words[1] != "-":
        from proa.cli.humanise import decimal_size

        _say(f"Successfully copied {decimal_size(count[0])} to {words[1]}")
    return 0


def _export(settings: Settings, options: Options, words: list[str]) -> int:
    path = options.text("output")
    if not path and is_terminal(1):
        raise Invalid(
            "cowardly refusing to export to a terminal", code="stdout-is-terminal", hint="use -o FILE or redirect"
        )
    from proa.cli.commands.archive import receive

    connection = Caller(locate(settings.host)).open("GET", f"/containers/{quote(words[0])}/export")
    receive(connection, path)
    return 0


COPY = Command(
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem",
    COPY_ROWS,
    _act,
    least=2,
    most=2,
)
EXPORT = Command(
    "[OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    EXPORT_ROWS,
    _export,
    least=1,
    most=1,
)
