"""The snapshotter: file system states, each on top of its parent.

Words. A *snapshot* is a file system state. An *active* snapshot is writable and known by a `key` its user chose; a
*committed* one never changes again and is known by its `name`, which for image layers is the chain ID; a *view* is an
active snapshot that cannot be written. The *parent* is the committed snapshot below, "" for none.

Nothing is mounted here. `prepare`, `view` and `mounts` return what to mount; who runs the container mounts it in a
mount namespace of its own. So a snapshot costs two directories and no mount, and an engine that dies leaks none.

Life of an image layer:                              Life of a container's file system:
    mounts = prepare("unpack:…", parent)                 mounts = prepare("container:<id>", chain_id)
    apply the layer in upper_dir(mounts)                 the monitor mounts them, the container writes
    make it durable (syncfs)                             usage("container:<id>"); diff for `commit`
    commit(chain_id, "unpack:…")                         remove("container:<id>")

How to mount a Mount. type "bind": bind `source` ("ro" or "rw" in options). type "overlay": when an option begins with
`lowerdir+=`, the lower directories do not fit the one page that mount(2) takes: fsopen("overlay"), one fsconfig
SET_STRING per option split at its first "=" (SET_FLAG for one without), in the order given, fsconfig CMD_CREATE,
fsmount, move_mount. Otherwise mount(2) with the options joined by commas. Read-only overlays have the option "ro",
which is the mount flag, not overlay's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import msgspec

from proa.errors import Invalid

Kind = Literal["active", "view", "committed"]


class Mount(msgspec.Struct, frozen=True):
    """One mount to make: file system type ("overlay", "bind"), source, options as mount(8) takes them."""

    type: str
    source: str
    options: tuple[str, ...] = ()


class SnapshotInfo(msgspec.Struct, frozen=True):
    """A snapshot's key (or name, when committed), its parent's name ("" for none), its kind, and when it was made
    (seconds since the epoch)."""

    key: str
    parent: str
    kind: Kind
    created: float = 0.0


class Usage(msgspec.Struct, frozen=True):
    """What a snapshot adds to its parent: bytes and inodes, hard links once. Counted by a walk these are allocated;
    of an unpacked layer the sum of its files' sizes, what Docker calls the size."""

    size_bytes: int
    inodes: int


class Snapshotter(Protocol):
    """See the module. Thread-safe; calls on different keys never wait for each other's I/O."""

    def prepare(self, key: str, parent: str | None = None, *, volatile: bool = False) -> list[Mount]:
        """Make a writable snapshot on `parent` (None or "": on nothing) and return its mounts.

        volatile: unmounting need not write the files to disk; only for what is removed after its one use.
        Raises Conflict when `key` exists, NotFound when `parent` is not committed, Exhausted.
        """

    def view(self, key: str, parent: str) -> list[Mount]:
        """Make a read-only snapshot that shows `parent`. Raises as prepare."""

    def mounts(self, key: str) -> list[Mount]:
        """The mounts of an active snapshot or view, as prepare returned them. Raises NotFound."""

    def commit(self, name: str, key: str, usage: Usage | None = None) -> None:
        """Turn active `key` into committed `name`; its files must be durable and nobody may write them any more.

        Durable and atomic: after a crash either `name` is whole or it is not there. `usage`, when the caller
        counted while writing, saves a walk. Raises NotFound; Conflict when `name` exists (key stays as it was).
        """

    def remove(self, key: str) -> None:
        """Forget an active snapshot, view, or a committed snapshot without children; the files are deleted in the
        background. Raises NotFound; Conflict when it is a parent."""

    def stat(self, key: str) -> SnapshotInfo:
        """What `key`, or the committed snapshot of that name, is. Raises NotFound."""

    def usage(self, key: str) -> Usage:
        """What it adds to its parent: recorded when committed, walked when active. Raises NotFound."""

    def walk(self) -> Iterator[SnapshotInfo]:
        """Every snapshot; parents may come after children."""


def upper_dir(mounts: Sequence[Mount]) -> str:
    """The host directory that holds what is written: where to apply a layer and what to diff. Raises Invalid."""
    for mount in reversed(mounts):
        if mount.type == "overlay":
            for option in mount.options:
                if option.startswith("upperdir="):
                    return option.removeprefix("upperdir=")
        elif mount.type == "bind" and "ro" not in mount.options:
            return mount.source
    raise Invalid("a read-only snapshot has no writable directory", code="snapshot-readonly")


def lower_dirs(mounts: Sequence[Mount]) -> list[str]:
    """The host directories below the writable one, uppermost first; what `diff` compares with."""
    out: list[str] = []
    for mount in mounts:
        if mount.type == "overlay":
            for option in mount.options:
                if option.startswith("lowerdir="):
                    out += option.removeprefix("lowerdir=").split(":")
                elif option.startswith("lowerdir+="):
                    out.append(option.removeprefix("lowerdir+="))
        elif mount.type == "bind" and "ro" in mount.options:
            out.append(mount.source)
    return out
