"""What a copy does with names, as `docker cp` does: into a directory, onto a file, or to a new name.

Source and destination are `Place`s; which side is the container does not matter.
"""

from __future__ import annotations

import os
import posixpath

from proa.errors import Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Place", "local_destination", "local_source", "plan", "remote"]

_GO_DIRECTORY, _GO_LINK = 1 << 31, 1 << 27
_LINKS = 10


class Place:
    """A path on one side of a copy: a trailing slash or `/.` says that it is meant to be a directory.

    name: what the copy is called when it goes into a directory.
    """

    __slots__ = ("directory", "exists", "name", "path")

    def __init__(self, path: str, *, exists: bool, directory: bool, name: str = "") -> None:
        self.path = path
        self.exists = exists
        self.directory = directory
        self.name = name or _base(path)


def plan(source: Place, destination: Place) -> tuple[str, str]:
    """The directory in which the copy is made, and its name there ("." for the content of the source directory).

    Raises Invalid, NotFound, in Docker's words.
    """
    if destination.exists and destination.directory:
        return destination.path, source.name
    if destination.exists and source.directory:
        raise Invalid("cannot copy directory", code="copy-onto-file", subject=destination.path)
    if not (destination.exists or source.directory) and destination.path.endswith(("/", "/.")):
        raise NotFound("no such directory", code="directory-missing", subject=destination.path)
    path = destination.path
    while path != "/" and path.endswith(("/", "/.")):
        path = path.rstrip("/") if path.endswith("/") else path[:-2]
    parent, name = posixpath.split(path or "/")
    return parent or ".", name


def local_source(path: str, *, follow: bool) -> Place:
    """A file of this machine to copy; with `follow` what a link leads to, under the link's name. Raises NotFound."""
    full = _absolute(path)
    try:
        status = os.lstat(full)
        if not follow and not os.path.islink(full):
            return Place(full, exists=True, directory=_is_directory(status.st_mode))
        if follow and os.path.islink(full.rstrip("/")):
            name = _base(full)
            full = os.path.realpath(full)
            return Place(full, exists=True, directory=os.path.isdir(full), name=name)
        return Place(full, exists=True, directory=_is_directory(status.st_mode))
    except OSError as error:
        text = f"lstat {full}: {(error.strerror or '').lower()}"
        raise NotFound(text, code="no-such-file", subject=path) from None


def local_destination(path: str) -> Place:
    """Where on this machine to copy to, links at its end followed. Raises Invalid."""
    full = _absolute(path)
    parent = os.path.dirname(os.path.normpath(full))
    if not os.path.isdir(parent):
        raise Invalid(f'invalid output path: directory "{parent}" does not exist', code="directory-missing")
    if os.path.exists(full) and not (os.path.isdir(full) or os.path.isfile(full)):
        raise Invalid(f'destination "{full}" must be a directory or a regular file', code="irregular-file")
    for _ in range(_LINKS):
        if not os.path.islink(full):
            break
        full = os.path.join(os.path.dirname(full), os.readlink(full))
    return Place(full, exists=os.path.lexists(full), directory=os.path.isdir(full))


def remote(path: str, found: dict[str, Any] | None) -> Place:
    """A path in a container, with what the engine says of it (`X-Docker-Container-Path-Stat`), None for nothing."""
    if not found:
        return Place(path, exists=False, directory=False)
    return Place(path, exists=True, directory=bool(found["mode"] & _GO_DIRECTORY))


def link_target(path: str, found: dict[str, Any]) -> str:
    """Where a link in a container leads; the path itself when it is none."""
    if not found["mode"] & _GO_LINK:
        return path
    target = str(found["linkTarget"])
    return target if target.startswith("/") else posixpath.join(posixpath.dirname(path), target)


def _absolute(path: str) -> str:
    """Absolute and clean, but with the `/` or `/.` at its end."""
    clean = os.path.abspath(path)
    if path == "." or path.endswith("/."):
        return clean.rstrip("/") + "/."
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or "/"


def _is_directory(mode: int) -> bool:
    return mode & 0o170000 == 0o040000
