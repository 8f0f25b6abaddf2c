"""Unique names for ids, reserved without a race, with a few columns to list by.

names = NameIndex(index, "containers", ("image", "state"))
if names.fresh:                                   # the index was lost: the owner's records are the truth
    names.replace(Entry(...) for each record)
names.reserve("web", container_id, image="alpine", state="created")   # Conflict names the holder
names.resolve("web" or full id or unique id prefix)
"""

# ruff: noqa: S608 (the only text put into statements is identifiers, checked against IDENTIFIER)
from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from proa.errors import Conflict, Invalid, NotFound
from proa.storage.index import IDENTIFIER, Index, Row


class Entry(msgspec.Struct, frozen=True):
    """One id, its name ("" for none), when it was made (seconds since the epoch), and its columns."""

    id: str
    name: str
    created: float
    columns: Mapping[str, str] = {}


class NameIndex:
    """One table of names. Thread-safe. `fresh` is True when the table is new and `replace` should fill it."""

    def __init__(self, index: Index, scope: str, columns: Sequence[str] = ()) -> None:
        for column in columns:
            if not IDENTIFIER.fullmatch(column) or column in ("id", "name", "created"):
                raise ValueError(f"{column!r} is no column name")
        self._index = index
        self._scope = scope
        self._table = f"names_{scope}"
        self._columns = tuple(columns)
        self._all = ", ".join(("id", "name", "created", *columns))
        definition = "id TEXT PRIMARY KEY, name TEXT UNIQUE, created REAL NOT NULL"
        definition += "".join(f", {c} TEXT NOT NULL DEFAULT ''" for c in columns)
        self.fresh = index.define(self._table, definition, "created")

    def reserve(self, name: str, entry_id: str, created: float | None = None, **columns: str) -> None:
        """Give `entry_id` the unused `name` ("" for none). Raises Conflict; its field `holder` is who has it."""
        entry = Entry(entry_id, name, time.time() if created is None else created, columns)
        try:
            with self._index.write() as write:
                self._insert(write, entry)
        except sqlite3.IntegrityError:
            raise self._taken(name, entry_id) from None

    def rename(self, entry_id: str, name: str) -> None:
        """Raises NotFound; Conflict as reserve."""
        try:
            self._change(entry_id, "name=?", (name or None,))
        except sqlite3.IntegrityError:
            raise self._taken(name, entry_id) from None

    def update(self, entry_id: str, **columns: str) -> None:
        """Set columns. Raises NotFound."""
        self._check(columns)
        if columns:
            self._change(entry_id, ", ".join(f"{c}=?" for c in columns), tuple(columns.values()))

    def release(self, entry_id: str) -> None:
        """Forget `entry_id` and its name; fine when it is not there."""
        with self._index.write() as write:
            write.execute(f"DELETE FROM {self._table} WHERE id=?", (entry_id,))

    def get(self, entry_id: str) -> Entry:
        """By full id. Raises NotFound."""
        rows = self._index.read(f"SELECT {self._all} FROM {self._table} WHERE id=?", (entry_id,))
        if not rows:
            raise self._missing(entry_id)
        return self._entry(rows[0])

    def resolve(self, text: str) -> Entry:
        """By full id, else by name, else by a prefix of one id only. Raises NotFound, Invalid when it is ambiguous."""
        # A prefix is a range of the primary key: ids are hexadecimal, so "g" ends it.
        rows = self._index.read(
            f"SELECT {self._all} FROM {self._table} WHERE id=?1 OR name=?1 OR (id>=?1 AND id<?1||'g' AND ?1<>'')"
            " ORDER BY id=?1 DESC, name IS ?1 DESC LIMIT 2",
            (text,),
        )
        if not rows:
            raise self._missing(text)
        exact = rows[0][0] == text or rows[0][1] == text
        if len(rows) > 1 and not exact:
            raise Invalid(f"multiple IDs found with provided prefix: {text}", code="prefix-ambiguous", subject=text)
        return self._entry(rows[0])

    def list(self, **columns: str) -> list[Entry]:
        """Entries whose columns have these values, oldest first."""
        self._check(columns)
        where = " AND ".join(f"{c}=?" for c in columns) or "1"
        rows = self._index.read(
            f"SELECT {self._all} FROM {self._table} WHERE {where} ORDER BY created, id", tuple(columns.values())
        )
        return [self._entry(row) for row in rows]

    def replace(self, entries: Iterable[Entry]) -> None:
        """Make these the only entries. Of two with one name the older keeps it, the other becomes nameless."""
        names: set[str] = set()
        with self._index.write() as write:
            write.execute(f"DELETE FROM {self._table}")
            for entry in sorted(entries, key=lambda e: e.created):
                if entry.name in names:
                    entry = Entry(entry.id, "", entry.created, entry.columns)
                names.add(entry.name)
                self._insert(write, entry)
        self.fresh = False

    def _insert(self, write: sqlite3.Connection, entry: Entry) -> None:
        self._check(entry.columns)
        values: list[Any] = [entry.id, entry.name or None, entry.created]
        values += [entry.columns.get(c, "") for c in self._columns]
        write.execute(f"INSERT INTO {self._table} ({self._all}) VALUES ({', '.join('?' * len(values))})", values)

    def _change(self, entry_id: str, assignments: str, values: tuple[Any, ...]) -> None:
        with self._index.write() as write:
            if not write.execute(f"UPDATE {self._table} SET {assignments} WHERE id=?", (*values, entry_id)).rowcount:
                raise self._missing(entry_id)

    def _check(self, columns: Mapping[str, str]) -> None:
        unknown = set(columns).difference(self._columns)
        if unknown:
            raise ValueError(f"{self._scope} have no column {sorted(unknown)}")

    def _entry(self, row: Row) -> Entry:
        return Entry(row[0], row[1] or "", row[2], dict(zip(self._columns, row[3:], strict=True)))

    def _missing(self, text: str) -> NotFound:
        return NotFound(f"{self._scope}: no such name or id: {text}", code="name-not-found", subject=text)

    def _taken(self, name: str, entry_id: str) -> Conflict:
        rows = self._index.read(f"SELECT id FROM {self._table} WHERE name=?", (name,))
        holder = rows[0][0] if rows else entry_id
        return Conflict(f"name {name!r} is in use by {holder}", code="name-in-use", subject=name, holder=holder)
