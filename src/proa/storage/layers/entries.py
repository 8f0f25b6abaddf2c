"""Entries of an archive as they are told by files."""

from __future__ import annotations

import os
import stat

from proa.storage.layers.headers import Entry

__all__ = ["entry_of", "kind_of"]

_KINDS = {
    stat.S_IFREG: "0",
    stat.S_IFLNK: "2",
    stat.S_IFCHR: "3",
    stat.S_IFBLK: "4",
    stat.S_IFDIR: "5",
    stat.S_IFIFO: "6",
}


def kind_of(status: os.stat_result) -> str | None:
    """The type flag for a file; None for a socket, which archives cannot hold."""
    return _KINDS.get(stat.S_IFMT(status.st_mode))


def entry_of(name: bytes, kind: str, status: os.stat_result, mtime_ns: int) -> Entry:
    """An entry with the mode and owner of a file."""
    entry = Entry()
    entry.name = name
    entry.kind = kind
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid = status.st_uid, status.st_gid
    entry.mtime_ns = mtime_ns
    return entry
