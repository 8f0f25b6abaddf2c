"""The index: an SQLite file of what can be rebuilt from the records, for lists and look-ups.

The files are the truth and are durable before a row is written, so the index may always be thrown away: after an
unclean end, when SQLite finds it malformed, or when its schema is another version's, it starts empty and every table's
owner fills it again (`define` says when). Losing it loses nothing.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proa.errors import Corrupt, Exhausted
from proa.storage.records import fsync_directory

SCHEMA = 1
_SUFFIXES = ("", "-wal", "-shm", "-journal")
IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,40}", re.ASCII)

Row = tuple[Any, ...]


class Index:
    """WAL mode: one connection writes, one reads, so that reading never waits for a commit's fsync. Thread-safe.

    rebuilt: it started empty. in_memory: the disk has no room for it, so it is not kept.
    """

    def __init__(self, path: Path) -> None:
        self.in_memory = False
        self._path = path
        self._dirty = path.with_suffix(".dirty")
        self._write_lock = threading.RLock()
        self._read_lock = threading.RLock()
        self.rebuilt = self._dirty.exists() or not path.exists()
        if self.rebuilt:
            self._discard()
        try:
            self._connect()
        except sqlite3.DatabaseError:
            self.rebuilt = True
            self._discard()
            try:
                self._connect()
            except (sqlite3.DatabaseError, OSError):
                self._connect_in_memory()
        except OSError:
            self.rebuilt = True
            self._connect_in_memory()
        self._suspect = False
        self._synchronous = "FULL"
        try:
            self._dirty.touch(mode=0o600)
            fsync_directory(path.parent)
        except OSError:
            # Without the mark an unclean end would go unnoticed: keep nothing on disk.
            if not self.in_memory:
                self._writer.close()
                self._reader.close()
                self._discard()
                self._connect_in_memory()

    def define(self, table: str, columns: str, *indexes: str) -> bool:
        """Make `table` with the column definitions `columns` unless it is there.

        Returns True when it is new and its owner has to fill it. `indexes` are column lists to index.
        """
        if not IDENTIFIER.fullmatch(table):
            raise ValueError(f"{table!r} is no table name")
        with self.write() as write:
            if write.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name=?", (table,)).fetchone():
                return False
            write.execute(f"CREATE TABLE {table} ({columns})")
            for i, column_list in enumerate(indexes):
                write.execute(f"CREATE INDEX {table}_{i} ON {table} ({column_list})")
        return True

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Rows of a query. Raises Corrupt."""
        with self._read_lock, self._faults():
            return self._reader.execute(sql, values).fetchall()

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction, committed at the end of the block and rolled back on an exception.

        durable: fsync at the commit (0.3 ms); without it a power loss may undo it, and the rebuild brings it back.
        Raises Corrupt, Exhausted; sqlite3.IntegrityError passes.
        """
        with self._write_lock, self._faults():
            wanted = "FULL" if durable else "NORMAL"
            if wanted != self._synchronous:
                self._writer.execute(f"PRAGMA synchronous={wanted}")
                self._synchronous = wanted
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    def audit(self) -> list[str]:
        """What SQLite finds wrong with its file (pragma integrity_check); the rows are for their owners to compare."""
        try:
            found = self.read("PRAGMA integrity_check(20)")
        except Corrupt as error:
            return [error.message]
        gone = [] if self._path.exists() else ["the file is gone"]
        return gone + [str(text) for (text,) in found if text != "ok"]

    def reset(self) -> None:
        """Begin an empty index in place of a damaged one; every table's owner then defines and fills its own again."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()
            self._discard()
            self._connect()
            self._suspect = False
            self._synchronous = "FULL"

    def close(self) -> None:
        """Write the log back and note that the end was clean."""
        with self._write_lock, self._read_lock:
            if self.in_memory:
                self._writer.close()
                return
            self._reader.close()
            try:
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.DatabaseError:
                self._suspect = True
            self._writer.close()
            if not self._suspect:
                self._dirty.unlink(missing_ok=True)

    def _connect(self) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # SQLite would apply the umask only
        os.close(fd)
        self._writer = self._open()
        try:
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.execute("PRAGMA synchronous=FULL")
            (answer,) = self._writer.execute("PRAGMA quick_check(1)").fetchone()
            (version,) = self._writer.execute("PRAGMA user_version").fetchone()
            if answer != "ok" or version not in (0, SCHEMA):
                raise sqlite3.DatabaseError(f"index is unusable: {answer}, schema {version}")
            self._writer.execute(f"PRAGMA user_version={SCHEMA}")
            self._reader = self._open()
        except sqlite3.DatabaseError:
            self._writer.close()
            raise

    def _connect_in_memory(self) -> None:
        """For a disk on which not even the index can be made: an engine that cannot start could not free space."""
        self.in_memory = True
        self._writer = self._reader = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._read_lock = self._write_lock

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)

    def _discard(self) -> None:
        for suffix in _SUFFIXES:
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as e:
            if getattr(e, "sqlite_errorname", "") == "SQLITE_FULL":
                raise Exhausted(f"no space left on device while writing {self._path}", code="disk-full") from e
            self._suspect = True  # keeps the dirty mark, so the next start rebuilds it
            raise Corrupt(
                f"index {self._path} cannot be used: {e}",
                code="index-corrupt",
                hint="restart the engine: it rebuilds the index from its records",
            ) from e
