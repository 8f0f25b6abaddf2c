"""Snapshotter on overlay: a directory of files per snapshot, an overlay mount per use.

State is in the records (see paths) and, as long as this process is the only writer, also in memory, so a lookup costs
no system call. A directory without a record is what a crash left, and is deleted when the store is opened.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from proa.errors import Conflict, Corrupt, Internal, NotFound
from proa.storage.disk_usage import disk_usage
from proa.storage.failpoint import failpoint
from proa.storage.overlay_options import overlay_mount
from proa.storage.records import disk_faults, file_name, key_of
from proa.storage.snapshot_records import CommitRecord, SnapshotEntry, SnapshotRecords, missing
from proa.storage.snapshots import Kind, Mount, SnapshotInfo, Usage
from proa.storage.spares import Spares
from proa.storage.trash import Trash

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_VOLATILE = "v"


def _nothing(_key: str) -> None:
    pass


class OverlaySnapshotter(SnapshotRecords):
    """See snapshots.Snapshotter. `touch(name)` is called before each look at a committed snapshot, so that a
    collection that runs at the same time leaves it (see leases)."""

    def __init__(self, snapshots: Path, trash: Trash, touch: Callable[[str], None] = _nothing) -> None:
        super().__init__(snapshots, touch)
        self._trash = trash
        self._last = 0
        self._spares = Spares(self._make_spare, self._drop_spare)
        self._load()

    def prepare(self, key: str, parent: str | None = None, *, volatile: bool = False) -> list[Mount]:
        """Raises Conflict, NotFound, Exhausted."""
        return self._make(key, parent or "", "active", _VOLATILE if volatile else "")

    def view(self, key: str, parent: str) -> list[Mount]:
        """Raises Conflict, NotFound, Exhausted."""
        return self._make(key, parent, "view", "")

    def mounts(self, key: str) -> list[Mount]:
        """Raises NotFound, Corrupt when a parent's record is lost."""
        entry = self._find_active(key)
        if _VOLATILE in entry.flags:
            # Overlay marks a volatile upper directory as possibly incomplete and then refuses it; a container that is
            # started again after a clean stop has lost nothing.
            mark = f"{self._directory(entry.id)}/work/work/incompat/volatile"
            try:
                os.unlink(f"{mark}/dirty")
                os.rmdir(mark)
            except OSError:
                pass
        return self._compose(entry)

    def commit(self, name: str, key: str, usage: Usage | None = None) -> None:
        """Raises NotFound, Conflict, Exhausted."""
        self._touch(name)  # before any lock: a collection that holds the lease lock may wait for ours
        with self._keys.hold(f"active {key}"), self._keys.hold(f"committed {name}"):
            entry = self._find_active(key)
            if entry.kind != "active":
                raise Conflict(f"snapshot {key} is read-only and cannot be committed", code="snapshot-readonly")
            if name in self._committed:
                raise Conflict(f"snapshot {name} exists already", code="snapshot-exists", subject=name)
            usage = usage or disk_usage(f"{self._directory(entry.id)}/fs")
            created = time.time()
            record = CommitRecord(
                name, entry.id, entry.parent, entry.parent_id, created, usage.size_bytes, usage.inodes
            )
            failpoint("snapshot.before-commit")
            self._committed_records.put(name, record)
            failpoint("snapshot.after-commit")
            with self._mutex:
                del self._active[key]
                entry.key, entry.kind, entry.created, entry.usage, entry.flags = name, "committed", created, usage, ""
                self._committed[name] = entry
            try:
                # The record last: what a crash or a failing disk leaves of this, the next start finishes.
                self._drop_work(entry.id)
                self._unlink_active(key)
            except OSError:
                pass

    def remove(self, key: str) -> None:
        """Raises NotFound, Conflict."""
        if not self._remove(key, "active") and not self._remove(key, "committed"):
            raise missing(key)

    def stat(self, key: str) -> SnapshotInfo:
        """Raises NotFound."""
        entry = self._active.get(key)
        if entry is None or not entry.ready:
            self._touch(key)
            entry = self._committed.get(key)
            if entry is None:
                raise missing(key)
        return SnapshotInfo(entry.key, entry.parent, entry.kind, entry.created)

    def usage(self, key: str) -> Usage:
        """Raises NotFound."""
        entry = self._active.get(key) or self._committed.get(key)
        if entry is None:
            raise missing(key)
        if entry.usage is not None:
            return entry.usage
        if entry.kind == "view":
            return Usage(0, 0)
        try:
            return disk_usage(f"{self._directory(entry.id)}/fs")
        except FileNotFoundError:
            raise missing(key) from None

    def walk(self) -> Iterator[SnapshotInfo]:
        """A list as of now."""
        with self._mutex:
            entries = [e for e in (*self._committed.values(), *self._active.values()) if e.ready]
        for e in entries:
            yield SnapshotInfo(e.key, e.parent, e.kind, e.created)

    def directories(self) -> dict[str, SnapshotInfo]:
        """Whose each directory is, by its name."""
        with self._mutex:
            return {e.id: SnapshotInfo(e.key, e.parent, e.kind, e.created) for e in self._by_id.values()}

    def lowers(self, name: str) -> list[str]:
        """The directories whose overlay is committed snapshot `name`, uppermost first. Raises NotFound, Corrupt."""
        self._touch(name)
        entry = self._committed.get(name)
        if entry is None:
            raise missing(name)
        return self._chain(entry)

    def close(self) -> None:
        """Stop making directories ahead."""
        self._spares.close()

    # --- making -----------------------------------------------------------------------------------------------

    def _make(self, key: str, parent: str, kind: Kind, flags: str) -> list[Mount]:
        if key_of(file_name(key)) != key:
            raise Internal(f"snapshot key {key[:80]!r} is empty or too long for a file name", code="snapshot-key")
        if parent:
            self._touch(parent)
        with self._keys.hold(f"active {key}"):
            entry = self._reserve(key, parent, kind)
            entry.flags = flags
            try:
                with disk_faults(f"snapshot {key}"):
                    self._give_id(entry)
                    mounts = self._compose(entry)
                    if kind == "active":
                        self._inherit_attributes(entry)
                    failpoint("snapshot.before-record")
                    os.symlink(self._link(entry), self._active_records / file_name(key))
            except BaseException:
                self._forget(entry)
                if entry.id:
                    self._trash.discard(self._directory(entry.id), nobodys=True)
                raise
            entry.created = time.time()
            entry.ready = True
        return mounts

    def _reserve(self, key: str, parent: str, kind: Kind) -> SnapshotEntry:
        with self._mutex:
            if key in self._active:
                raise Conflict(f"snapshot {key} exists already", code="snapshot-exists", subject=key)
            below = None
            if parent:
                below = self._committed.get(parent)
                if below is None:
                    raise NotFound(f"parent snapshot {parent} does not exist", code="snapshot-not-found")
                below.children += 1
            entry = SnapshotEntry(key, "", kind, parent, below.id if below else "")
            self._active[key] = entry
        return entry

    def _give_id(self, entry: SnapshotEntry) -> None:
        new = self._spares.take() if entry.kind == "active" else self._next_id()
        with self._mutex:
            entry.id = new
            self._by_id[new] = entry

    def _next_id(self) -> str:
        with self._mutex:
            self._last += 1
            return _base36(self._last)

    def _make_spare(self) -> str:
        while True:
            new = self._next_id()
            directory = self._directory(new)
            try:
                os.mkdir(directory, 0o700)
                break
            except FileExistsError:
                continue
        try:
            os.mkdir(f"{directory}/work", 0o700)
            os.mkdir(f"{directory}/fs", 0o755)
            os.chmod(f"{directory}/fs", 0o755)  # noqa: S103 (a container's `/`; its parent directory is 0700)
        except BaseException:
            self._trash.discard(directory, nobodys=True)
            raise
        return new

    def _drop_spare(self, spare: str) -> None:
        for path in ("fs", "work", ""):
            os.rmdir(f"{self._directory(spare)}/{path}")

    def _inherit_attributes(self, entry: SnapshotEntry) -> None:
        if not entry.parent_id:
            return
        # What is mounted at `/` shows the attributes of the uppermost directory.
        fs = f"{self._directory(entry.id)}/fs"
        below = os.stat(f"{self._directory(entry.parent_id)}/fs")
        if below.st_uid or below.st_gid:
            os.chown(fs, below.st_uid, below.st_gid)
        if stat.S_IMODE(below.st_mode) != 0o755:
            os.chmod(fs, stat.S_IMODE(below.st_mode))
        os.utime(fs, ns=(below.st_mtime_ns, below.st_mtime_ns))

    def _compose(self, entry: SnapshotEntry) -> list[Mount]:
        directory = self._directory(entry.id)
        lowers = self._chain(entry)[1:]
        if entry.kind == "view":
            # Overlay wants two directories when there is none to write to.
            return [Mount("bind", lowers[0], ("bind", "ro")) if len(lowers) == 1 else overlay_mount(lowers)]
        if not lowers:
            return [Mount("bind", f"{directory}/fs", ("bind", "rw"))]
        volatile = _VOLATILE in entry.flags
        return [overlay_mount(lowers, f"{directory}/fs", f"{directory}/work", volatile=volatile)]

    def _chain(self, entry: SnapshotEntry) -> list[str]:
        out = [f"{self._directory(entry.id)}/fs"]
        while entry.parent_id:
            below = self._by_id.get(entry.parent_id)
            if below is None:
                raise Corrupt(
                    f"snapshot {entry.key} stands on {entry.parent or entry.parent_id}, whose record is lost",
                    code="snapshot-damaged",
                    subject=entry.key,
                )
            entry = below
            out.append(f"{self._directory(entry.id)}/fs")
        return out

    # --- removing ---------------------------------------------------------------------------------------------

    def _remove(self, key: str, kind: Kind) -> bool:
        table = self._active if kind == "active" else self._committed
        with self._keys.hold(f"{kind} {key}"):
            with self._mutex:
                entry = table.get(key)
                if entry is None:
                    return False
                if entry.children:
                    raise Conflict(
                        f"snapshot {key} is the parent of {entry.children} others", code="snapshot-in-use", subject=key
                    )
                self._forget_locked(entry)
            try:
                if kind == "active":
                    self._unlink_active(key)
                else:
                    # Not fsynced: a record that a crash brings back without its directory is dropped by
                    # _discard_orphans.
                    self._committed_records.delete(key, durable=False)
            except OSError:
                with self._mutex:
                    self._remember_locked(entry)
                raise
            failpoint("snapshot.before-trash")
            if entry.kind != "view":
                self._trash.discard(self._directory(entry.id), nobodys=True)
        return True

    def _remember_locked(self, entry: SnapshotEntry) -> None:
        (self._committed if entry.kind == "committed" else self._active)[entry.key] = entry
        self._by_id[entry.id] = entry
        below = self._by_id.get(entry.parent_id)
        if below is not None:
            below.children += 1

    def _forget(self, entry: SnapshotEntry) -> None:
        with self._mutex:
            self._forget_locked(entry)

    def _forget_locked(self, entry: SnapshotEntry) -> None:
        del (self._committed if entry.kind == "committed" else self._active)[entry.key]
        self._by_id.pop(entry.id, None)
        below = self._by_id.get(entry.parent_id)
        if below is not None:
            below.children -= 1

    def _unlink_active(self, key: str) -> None:
        try:
            os.unlink(self._active_records / file_name(key))
        except FileNotFoundError:
            pass

    def _drop_work(self, entry_id: str) -> None:
        work = f"{self._directory(entry_id)}/work"
        try:
            os.rmdir(work)
        except FileNotFoundError:
            pass
        except OSError:  # it was mounted once: overlay left its own directory inside
            self._trash.discard(work, nobodys=True)

    # --- reconciling with the disk ----------------------------------------------------------------------------

    def _load(self) -> None:
        """Read the records, finish what a crash interrupted, and give directories nobody owns to the trash."""
        self._committed_records.tidy()
        for path, record in self._committed_records.walk():
            if isinstance(record, Corrupt):
                self.damaged.append(str(path))
                continue
            entry = SnapshotEntry(record.name, record.id, "committed", record.parent, record.parent_id)
            entry.created = record.created
            entry.usage = Usage(record.size_bytes, record.inodes)
            self._committed[record.name] = self._by_id[record.id] = entry
        for name in os.listdir(self._active_records):
            self._load_active(name)
        for entry in self._by_id.values():
            entry.ready = True
            below = self._by_id.get(entry.parent_id)
            if below is not None:
                below.children += 1
            elif entry.parent_id:
                self.damaged.append(entry.key)
        self._discard_orphans()

    def _load_active(self, name: str) -> None:
        path = self._active_records / name
        key = key_of(name)
        try:
            entry_id, parent_id, kind, flags = os.readlink(path).split(",")
        except (OSError, ValueError):
            self.damaged.append(str(path))
            return
        if key is None or kind not in ("active", "view") or entry_id in self._by_id:
            # Committed already: the crash came between the commit record and the removal of this one.
            if entry_id in self._by_id:
                self._drop_work(entry_id)
            os.unlink(path)
            return
        below = self._by_id.get(parent_id)
        parent = below.key if below is not None and below.kind == "committed" else ""
        entry = SnapshotEntry(key, entry_id, "active" if kind == "active" else "view", parent, parent_id)
        entry.flags = flags
        entry.created = os.lstat(path).st_mtime
        self._active[key] = self._by_id[entry_id] = entry

    def _discard_orphans(self) -> None:
        named = {e.id for e in self._by_id.values()} | {e.parent_id for e in self._by_id.values()}
        for name in os.listdir(self._snapshots):
            if name == "records":
                continue
            self._last = max(self._last, _number(name))
            # With a record that cannot be read nobody knows whose directory this is: `system check --repair` does.
            if name not in named and not self.damaged:
                self._trash.discard(self._snapshots / name, nobodys=True)
        self._last = max([self._last, *(_number(i) for i in named)])
        for entry in list(self._committed.values()):
            # A record whose directory is gone would make every pull believe the layer is there.
            if not os.path.isdir(f"{self._directory(entry.id)}/fs") and not entry.children:
                self._committed_records.delete(entry.key)
                self._forget(entry)


def _number(text: str) -> int:
    return int(text, 36) if text.isascii() and text.isalnum() else 0


def _base36(number: int) -> str:
    out = ""
    while True:
        number, digit = divmod(number, 36)
        out = _DIGITS[digit] + out
        if not number:
            return out


__all__ = ["CommitRecord", "OverlaySnapshotter"]
