"""Snapshotter on overlay: a directory of files per snapshot, an overlay mount per use.

State is in the records (see paths) and, as long as this process is the only writer, also in memory, so a lookup costs
no system call. A directory without a record is what a crash left, and is deleted when the store is opened.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from proa.errors import Conflict, Corrupt, Internal, NotFound, ProaError
from proa.linux.files import RENAME_EXCHANGE, renameat2
from proa.storage.disk_usage import disk_usage
from proa.storage.failpoint import failpoint
from proa.storage.locks import KeyedLocks
from proa.storage.overlay_options import overlay_mount
from proa.storage.records import Records, disk_faults, file_name, is_sealed, key_of, read_record
from proa.storage.snapshots import Kind, Mount, SnapshotInfo, Usage
from proa.storage.spares import Spares
from proa.storage.trash import Trash

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_VOLATILE = "v"


class CommitRecord(msgspec.Struct, omit_defaults=True):
    """What makes a snapshot committed: the file snapshots/records/committed/<name>.json."""

    name: str
    id: str
    parent: str
    parent_id: str
    created: float
    size_bytes: int
    inodes: int


class _Entry:
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


def _nothing(_key: str) -> None:
    pass


class OverlaySnapshotter:
    """See snapshots.Snapshotter. `touch(name)` is called before each look at a committed snapshot, so that a
    collection that runs at the same time leaves it (see leases)."""

    def __init__(self, snapshots: Path, trash: Trash, touch: Callable[[str], None] = _nothing) -> None:
        self._snapshots = snapshots
        self._active_records = snapshots / "records" / "active"
        self._committed_records = Records(snapshots / "records" / "committed", CommitRecord)
        self._trash = trash
        self._touch = touch
        self._keys = KeyedLocks()
        # Guards the dictionaries and the child counts; never held during I/O.
        self._mutex = threading.Lock()
        self._active: dict[str, _Entry] = {}
        self._committed: dict[str, _Entry] = {}
        self._by_id: dict[str, _Entry] = {}
        self._last = 0
        self.damaged: list[str] = []
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
            raise _missing(key)

    def stat(self, key: str) -> SnapshotInfo:
        """Raises NotFound."""
        entry = self._active.get(key)
        if entry is None or not entry.ready:
            self._touch(key)
            entry = self._committed.get(key)
            if entry is None:
                raise _missing(key)
        return SnapshotInfo(entry.key, entry.parent, entry.kind, entry.created)

    def usage(self, key: str) -> Usage:
        """Raises NotFound."""
        entry = self._active.get(key) or self._committed.get(key)
        if entry is None:
            raise _missing(key)
        if entry.usage is not None:
            return entry.usage
        if entry.kind == "view":
            return Usage(0, 0)
        try:
            return disk_usage(f"{self._directory(entry.id)}/fs")
        except FileNotFoundError:
            raise _missing(key) from None

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
            raise _missing(name)
        return self._chain(entry)

    # --- checking and repairing -------------------------------------------------------------------------------

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
                entry = _Entry(name, entry_id, "committed", parent, below.id if below else "")
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
                raise _missing(name)
            fd = os.open(self._snapshots, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                renameat2(fd, entry.id, fd, other.id, RENAME_EXCHANGE)
                os.fsync(fd)
            finally:
                os.close(fd)

    def _record_path(self, entry: _Entry) -> Path:
        if entry.kind == "committed":
            return self._committed_records.path(entry.key)
        return self._active_records / file_name(entry.key)

    @staticmethod
    def _record(e: _Entry) -> CommitRecord:
        usage = e.usage or Usage(0, 0)
        return CommitRecord(e.key, e.id, e.parent, e.parent_id, e.created, usage.size_bytes, usage.inodes)

    @staticmethod
    def _link(e: _Entry) -> str:
        return f"{e.id},{e.parent_id},{e.kind},{e.flags}"

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

    def _reserve(self, key: str, parent: str, kind: Kind) -> _Entry:
        with self._mutex:
            if key in self._active:
                raise Conflict(f"snapshot {key} exists already", code="snapshot-exists", subject=key)
            below = None
            if parent:
                below = self._committed.get(parent)
                if below is None:
                    raise NotFound(f"parent snapshot {parent} does not exist", code="snapshot-not-found")
                below.children += 1
            entry = _Entry(key, "", kind, parent, below.id if below else "")
            self._active[key] = entry
        return entry

    def _give_id(self, entry: _Entry) -> None:
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

    def _inherit_attributes(self, entry: _Entry) -> None:
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

    def _compose(self, entry: _Entry) -> list[Mount]:
        directory = self._directory(entry.id)
        lowers = self._chain(entry)[1:]
        if entry.kind == "view":
            # Overlay wants two directories when there is none to write to.
            return [Mount("bind", lowers[0], ("bind", "ro")) if len(lowers) == 1 else overlay_mount(lowers)]
        if not lowers:
            return [Mount("bind", f"{directory}/fs", ("bind", "rw"))]
        volatile = _VOLATILE in entry.flags
        return [overlay_mount(lowers, f"{directory}/fs", f"{directory}/work", volatile=volatile)]

    def _chain(self, entry: _Entry) -> list[str]:
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

    def _remember_locked(self, entry: _Entry) -> None:
        (self._committed if entry.kind == "committed" else self._active)[entry.key] = entry
        self._by_id[entry.id] = entry
        below = self._by_id.get(entry.parent_id)
        if below is not None:
            below.children += 1

    def _forget(self, entry: _Entry) -> None:
        with self._mutex:
            self._forget_locked(entry)

    def _forget_locked(self, entry: _Entry) -> None:
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

    # --- finding ----------------------------------------------------------------------------------------------

    def _directory(self, entry_id: str) -> str:
        return f"{self._snapshots}/{entry_id}"

    def _find_active(self, key: str) -> _Entry:
        entry = self._active.get(key)
        if entry is None or not entry.ready:
            raise _missing(key)
        return entry

    # --- reconciling with the disk ----------------------------------------------------------------------------

    def _load(self) -> None:
        """Read the records, finish what a crash interrupted, and give directories nobody owns to the trash."""
        self._committed_records.tidy()
        for path, record in self._committed_records.walk():
            if isinstance(record, Corrupt):
                self.damaged.append(str(path))
                continue
            entry = _Entry(record.name, record.id, "committed", record.parent, record.parent_id)
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
        entry = _Entry(key, entry_id, "active" if kind == "active" else "view", parent, parent_id)
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


def _missing(key: str) -> NotFound:
    return NotFound(f"snapshot {key} does not exist", code="snapshot-not-found", subject=key)


__all__ = ["CommitRecord", "OverlaySnapshotter"]
