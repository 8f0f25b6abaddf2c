"""Paths inside the root of this process, as clients name them (Docker Engine API, `/containers/{id}/archive`)."""

from __future__ import annotations

import os
import stat
from typing import Any

from proa.errors import Invalid, NotFound, Unavailable
from proa.storage.layers.names import display

__all__ = ["absolute", "base_name", "describe", "look_up"]

_LINKS = 255


def absolute(path: str) -> str:
    """A client's path from the root, without `.` and `..`; a slash or `/.` at its end, which asks for a directory,
    stays. Raises Invalid."""
    if not path or "\0" in path:
        raise Invalid("bad parameter: path cannot be empty", code="path-empty")
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    clean = "/" + "/".join(parts)
    if path.rpartition("/")[2] == ".":
        return clean.rstrip("/") + "/."
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def base_name(path: str) -> str:
    """The last part of an absolute path: `.` of `/a/.`, `a` of `/a/`, and `/` of the root."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def look_up(path: str) -> os.stat_result:
    """The file itself, not what a link at the end points to. Raises NotFound, Invalid when a part is no directory."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        raise NotFound("no such file", code="path-not-found", subject=path) from None
    except OSError as error:
        shown = display(os.fsencode(path))
        text = f"cannot look at {shown!r} in the container: {os.strerror(error.errno or 0)}"
        if isinstance(error, (NotADirectoryError, PermissionError)) or error.errno in (36, 40):  # ENAMETOOLONG, ELOOP
            raise Invalid(text, code="path-invalid", subject=shown) from None
        raise Unavailable(text, code="path-unreadable", subject=shown) from None


def describe(path: str, status: os.stat_result) -> dict[str, Any]:
    """What `X-Docker-Container-Path-Stat` tells: name, size, st_mode, mtime in nanoseconds, where a link leads."""
    return {
        "name": base_name(path),
        "size": status.st_size,
        "mode": status.st_mode,
        "mtime_ns": status.st_mtime_ns,
        "link_target": _follow(path) if stat.S_ISLNK(status.st_mode) else "",
    }


def _follow(path: str) -> str:
    """The absolute path that a link leads to in the end, existing or not; "" for one that leads in circles."""
    done: list[str] = []
    rest = path.split("/")[::-1]
    links = 0
    while rest:
        part = rest.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            continue
        here = "/" + "/".join([*done, part])
        try:
            target = os.readlink(here)
        except OSError:  # no link, or nothing at all
            done.append(part)
            continue
        links += 1
        if links > _LINKS:
            return ""
        if target.startswith("/"):
            done = []
        rest += target.split("/")[::-1]
    return "/" + "/".join(done)
