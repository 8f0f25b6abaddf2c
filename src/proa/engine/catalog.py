"""The catalog of containers: ids, names and records, in memory and as one file each.

The engine is the only writer (it holds the root's lock), so memory is the index and the files are the truth:

    containers/<id>/container.json   the record, replaced by rename
    containers/<id>/monitor.json     written by the monitor while the container runs
    containers/<id>/exit.json        written by the monitor when it ended
    containers/<id>/container.log…   written by the monitor

Reading 1,000 records at start takes some 60 ms; losing an index loses nothing because there is none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from proa.engine.agenda import Ticket
from proa.engine.types import Container
from proa.errors import Conflict, Corrupt, Invalid, NotFound
from proa.storage import read_record, write_record

RECORD = "container.json"
_ID_LENGTH = 64


class Entry:
    """A record with the lock that serialises what is done to its container."""

    __slots__ = ("lock", "pause_s", "pending", "record", "removed", "restarting")

    def __init__(self, record: Container) -> None:
        self.record = record
        self.lock = threading.RLock()
        self.removed = False
        self.restarting = False  # by a user, not by its policy
        self.pause_s = 0.0  # before its last restart by policy
        self.pending: Ticket | None = None  # its next one


class Catalog:
    """Find containers by id, unique id prefix or name; names are reserved race-free."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, str] = {}
        self.damaged: list[str] = []
        # Grows with every change of a record that is saved, added or dropped; with the events it tells when a list of
        # containers has become another.
        self.changes = 0

    def load(self) -> list[str]:
        """Read every record; returns the directories that hold none (leftovers of a crash during create).

        A record that is there and cannot be read is no leftover: its container is set aside, by id in `damaged`.
        """
        leftovers: list[str] = []
        for path in sorted(self.directory.iterdir()):
            try:
                record = read_record(path / RECORD, Container)
            except (NotFound, Corrupt) as error:
                # Nothing but a name, or an empty file, is what a power loss leaves of a create.
                whole = isinstance(error, Corrupt) and error.fields.get("size") and len(path.name) == _ID_LENGTH
                (self.damaged if whole else leftovers).append(path.name)
                continue
            if record.id != path.name or record.name in self._names:
                leftovers.append(path.name)
                continue
            self._entries[record.id] = Entry(record)
            self._names[record.name] = record.id
        return leftovers

    def add(self, record: Container) -> Entry:
        """Reserve the name and add the entry, in memory only. Raises Conflict with Docker's words."""
        with self._lock:
            self._reserve(record.name, record.id)
            entry = Entry(record)
            self._entries[record.id] = entry
            self.changes += 1
            return entry

    def _reserve(self, name: str, id: str) -> None:  # noqa: A002
        holder = self._names.get(name)
        if holder is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name.",
                code="name-in-use",
                subject=name,
            )
        # A name that reads as another container's ID must not shadow it (CVE-2014-5278).
        if len(name) >= 12 and any(other.startswith(name) for other in self._entries):
            raise Conflict(f"Conflict. The name {name!r} is the ID of another container", code="name-in-use")
        self._names[name] = id

    def rename(self, entry: Entry, name: str) -> None:
        """Give the entry another name. Raises Conflict."""
        with self._lock:
            self._reserve(name, entry.record.id)
            self._names.pop(entry.record.name, None)
            entry.record.name = name
            self.changes += 1

    def drop(self, entry: Entry) -> None:
        """Forget the entry and free its name."""
        with self._lock:
            entry.removed = True
            self.changes += 1
            self._entries.pop(entry.record.id, None)
            if self._names.get(entry.record.name) == entry.record.id:
                del self._names[entry.record.name]

    def find(self, name_or_id: str) -> Entry:
        """By full id, then name, then unique id prefix. Raises NotFound, Invalid when the prefix is ambiguous."""
        wanted = name_or_id.removeprefix("/")
        with self._lock:
            found = self._entries.get(wanted) or self._entries.get(self._names.get(wanted, ""))
            if found is None and wanted:
                matches = [e for id, e in self._entries.items() if id.startswith(wanted)]  # noqa: A001
                if len(matches) > 1:
                    raise Invalid(f"multiple IDs found with provided prefix: {wanted}", code="ambiguous-id")
                found = matches[0] if matches else None
        if found is None:
            raise NotFound(f"No such container: {name_or_id}", code="container-not-found", subject=name_or_id)
        return found

    def name_taken(self, name: str) -> bool:
        """True when a container has that name."""
        with self._lock:
            return name in self._names

    def __iter__(self) -> Iterator[Entry]:
        with self._lock:
            return iter(list(self._entries.values()))

    def save(self, entry: Entry) -> None:
        """Write the record. Records of auto-remove containers need not survive power loss: they would be removed."""
        path = self.directory / entry.record.id / RECORD
        with self._lock:
            self.changes += 1
        write_record(path, entry.record, durable=not entry.record.host.auto_remove)

    def path(self, entry: Entry) -> Path:
        """The container's directory."""
        return self.directory / entry.record.id


def copy_record(record: Container) -> Container:
    """A deep copy, for readers that must not see later changes."""
    return msgspec.convert(msgspec.to_builtins(record), Container)
