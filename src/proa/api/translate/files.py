"""Files in containers as clients read them: Go's `os.FileMode` and its JSON."""

from __future__ import annotations

import stat
from typing import Any

from proa.api.status import printable
from proa.engine.clock import rfc3339
from proa.engine.types import PathStat

# Go's mode bits above the permissions (package io/fs, type FileMode).
_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_SPECIAL = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


def go_mode(mode: int) -> int:
    """An st_mode as Go's FileMode."""
    special = sum(bit for flag, bit in _SPECIAL.items() if mode & flag)
    return mode & 0o777 | _KINDS.get(stat.S_IFMT(mode), 0) | special


def path_stat(found: PathStat) -> dict[str, Any]:
    """The document in `X-Docker-Container-Path-Stat`."""
    return {
        "name": printable(found.name),
        "size": found.size,
        "mode": go_mode(found.mode),
        "mtime": rfc3339(found.mtime_ns),
        "linkTarget": printable(found.link_target),
    }
