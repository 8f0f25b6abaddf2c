"""The records of snapshots and what this process knows of them: audited, written again, made anew."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from proa.errors import NotFound, ProaError
from proa.linux.files import RENAME_EXCHANGE, renameat2
from proa.storage.disk_usage import disk_usage
from proa.storage.locks import KeyedLocks
from proa.storage.records import Records, file_name, is_sealed, read_record
from proa.storage.snapshots import Kind, Usage

__all__ = ["CommitRecord", "SnapshotEntry", "SnapshotRecords", "missing"]


class CommitRecord(msgspec.Struct, omit_defaults=True):
    """What makes a snapshot committed: the file snapshots/records/committed/<name>.json."""

    name: str
    id: str
    parent: str
    parent_id: str
    created: float
    size_bytes: int
    inodes: int


class SnapshotEntry:
    """One snapshot in memory."""

    __slots__ = ("children", "created", "flags", "id", "key", "kind", "parent", "parent_id", "ready", "usage")

    def __init__(self, key: str, entry_id: str, kind: Kind, parent: str, parent_id: str) -> None:
        self.key = key
        self.id = entry_id
        self.kind: Kind = kind
        self.parent = parent
        self.parent_id = parent_id
        self.created = 0.0
        self.usage: Usage | None = None
        self.flags = ""
        self.children = 0
        self.ready = False


class SnapshotRecords:
    """What is known of the snapshots in the directory `snapshots`, in memory and on disk.

    Memory is right as long as this process is the only writer, so each can be checked and mended by the other.
    """

    def __init__(self, snapshots: Path, touch: Callable[[str], None]) -> None:
        self._snapshots = snapshots
        self._active_records = snapshots / "records" / "active"
        self._committed_records = Records(snapshots / "records" / "committed", CommitRecord)
        self._touch = touch
        self._keys = KeyedLocks()
        # Guards the dictionaries and the child counts; never held during I/O.
        self._mutex = threading.Lock()
        self._active: dict[str, SnapshotEntry] = {}
        self._committed: dict[str, SnapshotEntry] = {}
        self._by_id: dict[str, SnapshotEntry] = {}
        self.damaged: list[str] = []

    def audit(self) -> list[tuple[str, str]]:
        """Records that are not what this process knows: (path, what is wrong)."""
        out = [(path, "it cannot be read") for path in self.damaged if path.startswith("/")]
        with self._mutex:
            entries = [e for e in (*self._committed.values(), *self._active.values()) if e.ready]
        for e in entries:
            path = self._record_path(e)
            try:
                if e.kind == "committed":
                    same = is_sealed(path.read_bytes()) and read_record(path, CommitRecord) == self._record(e)
                else:
                    same = os.readlink(path) == self._link(e)
            except (OSError, ValueError, ProaError):
                same = False
            if not same and (self._committed if e.kind == "committed" else self._active).get(e.key) is e:
                out.append((str(path), "it is not what was written"))
        return out

    def restore_record(self, path: Path) -> bool:
        """Write the record at `path` again from memory; False when nothing is known of it."""
        with self._mutex:
            entries = [*self._committed.values(), *self._active.values()]
        for e in entries:
            if e.ready and self._record_path(e) == path:
                with self._keys.hold(f"{'committed' if e.kind == 'committed' else 'active'} {e.key}"):
                    if e.kind == "committed":
                        self._committed_records.put(e.key, self._record(e))
                    else:
                        temporary = path.with_name(f".{e.id}")
                        os.symlink(self._link(e), temporary)
                        os.rename(temporary, path)
                return True
        return False

    def adopt(self, name: str, parent: str, entry_id: str) -> bool:
        """Make the lost commit record of `name` anew; False when its directory cannot be told.

        parent:   the name of what it stood on, which is there again
        entry_id: the id that the damaged record seems to have had
        """
        self._touch(name)
        with self._keys.hold(f"committed {name}"):
            with self._mutex:
                below = self._committed.get(parent)
                if name in self._committed or (parent and below is None):
                    return False
                if not entry_id or entry_id in self._by_id:
                    entry_id = next((e.parent_id for e in self._by_id.values() if e.parent == name), "")
                entry = SnapshotEntry(name, entry_id, "committed", parent, below.id if below else "")
            if not entry_id or not os.path.isdir(f"{self._directory(entry_id)}/fs"):
                return False
            entry.created, entry.usage = time.time(), disk_usage(f"{self._directory(entry_id)}/fs")
            self._committed_records.put(name, self._record(entry))
            with self._mutex:
                above = [e for e in self._by_id.values() if e.parent_id == entry_id]
                for e in above:
                    e.parent = name
                entry.children = len(above)
                entry.ready = True
                self._committed[name] = self._by_id[entry_id] = entry
                if below is not None:
                    below.children += 1
            gone = {str(self._record_path(entry)), *(e.key for e in above)}
            self.damaged = [d for d in self.damaged if d not in gone]
        return True

    def exchange(self, name: str, key: str) -> None:
        """Let committed snapshot `name` have the files of active snapshot `key`, and the other way round, in one step.

        Both stand on the same parent; nothing has either mounted. Raises NotFound.
        """
        with self._keys.hold(f"active {key}"), self._keys.hold(f"committed {name}"):
            entry, other = self._committed.get(name), self._find_active(key)
            if entry is None:
                raise missing(name)
            fd = os.open(self._snapshots, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                renameat2(fd, entry.id, fd, other.id, RENAME_EXCHANGE)
                os.fsync(fd)
            finally:
                os.close(fd)

    def _record_path(self, entry: SnapshotEntry) -> Path:
        if entry.kind == "committed":
            return self._committed_records.path(entry.key)
        return self._active_records / file_name(entry.key)

    @staticmethod
    def _record(e: SnapshotEntry) -> CommitRecord:
        usage = e.usage or Usage(0, 0)
        return CommitRecord(e.key, e.id, e.parent, e.parent_id, e.created, usage.size_bytes, usage.inodes)

    @staticmethod
    def _link(e: SnapshotEntry) -> str:
        return f"{e.id},{e.parent_id},{e.kind},{e.flags}"

    def _directory(self, entry_id: str) -> str:
        return f"{self._snapshots}/{entry_id}"

    def _find_active(self, key: str) -> SnapshotEntry:
        entry = self._active.get(key)
        if entry is None or not entry.ready:
            raise missing(key)
        return entry


def missing(key: str) -> NotFound:
    """The error for a snapshot that is not there."""
    return NotFound(f"snapshot {key} does not exist", code="snapshot-not-found", subject=key)
