"""Small JSON files that are replaced as a whole: readers see the old one or the new one, a crash leaves one of both.

    write a temporary file beside it -> fsync it -> rename it into place -> fsync the directory

A record that is a JSON object begins with the member "crc32", the sum of all bytes after it: a bit that flipped on the
disk is found when the record is read, also where it left the JSON valid.

`durable=False` leaves both fsyncs out: then a power loss may also leave the record missing or empty, which readers
report as Corrupt; a crash of the process alone cannot.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote, unquote
from zlib import crc32

import msgspec

from proa.errors import Corrupt, Exhausted, NotFound, Unavailable
from proa.storage.failpoint import failpoint

T = TypeVar("T")

RECORD_LIMIT = 16 << 20
_TEMPORARY = re.compile(r"\.tmp-[0-9]+-[0-9]+", re.ASCII)
_counter = itertools.count()
_SEAL = b'{"crc32":"'
_SEALED = len(_SEAL) + 10


def file_name(key: str) -> str:
    """A file name for any text: percent-encoded, or `~` and its sha256 when that would be longer than 200 bytes.

    Distinct texts get distinct names, none begins with a dot, and nothing in `key` can name a directory.
    """
    name = quote(key, safe="", errors="surrogateescape")
    if len(name) <= 200 and not name.startswith((".", "~")) and name:
        return name
    return "~" + sha256(key.encode(errors="surrogateescape")).hexdigest()


def key_of(name: str) -> str | None:
    """The text that `file_name` encoded, or None when only its digest is left."""
    return None if name.startswith("~") else unquote(name, errors="surrogateescape")


def fsync_directory(path: Path | str) -> None:
    """Make the names in directory `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def disk_faults(what: str) -> Iterator[None]:
    """Name `what` was being written: Exhausted when the disk, a quota or a descriptor table is full, Unavailable
    when the disk fails."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Exhausted(
                f"no space left on device while writing {what}",
                code="disk-full",
                hint="free space with `proa system prune`, or move the data root",
            ) from e
        if e.errno in (errno.EMFILE, errno.ENFILE):
            raise Exhausted(f"too many open files while writing {what}", code="too-many-files") from e
        if e.errno in (errno.EIO, errno.EROFS, errno.EUCLEAN):
            raise Unavailable(
                f"the disk fails while writing {what}: {os.strerror(e.errno)}",
                code="disk-failing",
                hint="the kernel log says more; nothing that was reported done is affected",
            ) from e
        raise


def write_bytes(path: Path, data: bytes, *, durable: bool = True, mode: int = 0o600) -> None:
    """Replace file `path` by `data` as a whole, see above. Raises Exhausted, OSError."""
    temporary = f"{path.parent}/.tmp-{os.getpid()}-{threading.get_native_id()}{next(_counter)}"
    with disk_faults(str(path)):
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            failpoint("record.before-rename")
            os.rename(temporary, path)
        except BaseException:
            try:
                os.unlink(temporary)
            except FileNotFoundError:
                pass
            raise
        if durable:
            fsync_directory(path.parent)


def write_record(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace record `path` by the JSON of `value` (a msgspec struct, dict or list). Raises Exhausted, OSError."""
    raw = msgspec.json.encode(value)
    if raw[:1] == b"{" and raw != b"{}":
        raw = b'%s%08x",%s' % (_SEAL, crc32(raw[1:]), raw[1:])
    write_bytes(path, raw, durable=durable)


def is_sealed(raw: bytes) -> bool:
    """Whether a record's bytes begin with a checksum. Raises ValueError when it is not theirs."""
    if not raw.startswith(_SEAL):
        return False
    if raw[len(_SEAL) : _SEALED] != b'%08x",' % crc32(raw[_SEALED:]):
        raise ValueError("its bytes are not those that were written")
    return True


def read_record(path: Path, kind: type[T]) -> T:
    """Read record `path` as a `kind`. Raises NotFound; Corrupt when it is not one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise NotFound(f"there is no record {path}", code="record-not-found", subject=str(path)) from None
    with open(fd, "rb", buffering=0) as f:
        raw = f.read(RECORD_LIMIT + 1) or b""
    try:
        if is_sealed(raw):
            raw = b"{" + raw[_SEALED:]
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError, ValueError) as e:
        raise Corrupt(
            f"record {path} cannot be read: {e}", code="record-corrupt", subject=str(path), size=len(raw)
        ) from e


def delete_record(path: Path, *, durable: bool = True) -> bool:
    """Remove record `path`; False when there was none."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    if durable:
        fsync_directory(path.parent)
    return True


class Records(Generic[T]):
    """A directory of records of one kind, `<file_name(key)>.json` each. Thread-safe; the caller keeps writers of the
    same key apart when their order matters."""

    def __init__(self, directory: Path, kind: type[T]) -> None:
        self.directory = directory
        self._kind = kind

    def path(self, key: str) -> Path:
        """The file of `key`."""
        return self.directory / (file_name(key) + ".json")

    def get(self, key: str) -> T:
        """Raises NotFound, Corrupt."""
        return read_record(self.path(key), self._kind)

    def put(self, key: str, value: T, *, durable: bool = True) -> None:
        """Create or replace. Raises Exhausted, OSError."""
        write_record(self.path(key), value, durable=durable)

    def delete(self, key: str, *, durable: bool = True) -> bool:
        """Remove; False when there was none."""
        return delete_record(self.path(key), durable=durable)

    def walk(self) -> Iterator[tuple[Path, T | Corrupt]]:
        """Every record's file with its value, or with the error that reading it raised; by file name."""
        for name in sorted(os.listdir(self.directory)):
            if not name.endswith(".json") or name.startswith("."):
                continue
            path = self.directory / name
            try:
                yield path, read_record(path, self._kind)
            except Corrupt as e:
                yield path, e
            except NotFound:
                continue

    def tidy(self) -> int:
        """Remove temporary files that a killed writer left; call it while nobody writes. Returns how many."""
        count = 0
        for name in os.listdir(self.directory):
            if _TEMPORARY.fullmatch(name):
                os.unlink(self.directory / name)
                count += 1
        return count
