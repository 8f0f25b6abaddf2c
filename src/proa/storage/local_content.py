"""ContentStore on a directory: `blobs/<algorithm>/<hex>` and `ingests/<n>/{ref,partial}` (see paths)."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import msgspec

from proa.errors import Corrupt, NotFound, ProaError, Unavailable
from proa.oci import Descriptor, Digest, digest_algorithm, digest_hex, parse_digest
from proa.storage.content import BlobInfo, IngestStatus
from proa.storage.failpoint import failpoint
from proa.storage.ingest import LocalIngest, lock_partial
from proa.storage.paths import make_private
from proa.storage.readers import VerifyingReader, as_binary
from proa.storage.records import disk_faults, fsync_directory, read_record, write_record


class _Ref(msgspec.Struct, omit_defaults=True):
    ref: str
    expected: Descriptor | None = None


def _nothing(_digest: str) -> None:
    pass


class LocalContentStore:
    """See content.ContentStore. `touch(digest)` is called before each look at a blob, so that a collection that
    runs at the same time leaves it (see leases)."""

    def __init__(self, blobs: Path, ingests: Path, touch: Callable[[str], None] = _nothing) -> None:
        self._blobs = blobs
        self._ingests = ingests
        self._touch = touch
        # Digests whose bytes were found damaged: whoever would be content with having them brings them again.
        self.suspects: set[str] = set()
        # Guards the making and removing of ingest directories: short, never held while bytes move.
        self._directories = threading.Lock()

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        parse_digest(digest)
        return self._blobs / digest_algorithm(digest) / digest_hex(digest)

    def info(self, digest: Digest) -> BlobInfo:
        """Raises NotFound."""
        path = self.path(digest)
        self._touch(digest)
        try:
            if digest in self.suspects:
                raise FileNotFoundError
            found = os.lstat(path)
        except FileNotFoundError:
            raise _missing(digest) from None
        return BlobInfo(digest, found.st_size, found.st_mtime)

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """A reader that raises Corrupt at its end unless the bytes are right. Raises NotFound, Corrupt."""
        return as_binary(VerifyingReader(self.open_file(descriptor), descriptor))

    def open_file(self, descriptor: Descriptor) -> int:
        """A descriptor of the blob's file, for who verifies by other means: an unpack checks the diff_id, a client the
        digest of what it was sent. Raises NotFound, Corrupt when the size differs."""
        path = self.path(descriptor.digest)
        self._touch(descriptor.digest)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise _missing(descriptor.digest) from None
        size = os.fstat(fd).st_size
        if size != descriptor.size:
            os.close(fd)
            raise Corrupt(
                f"content {descriptor.digest} has {size} bytes on disk, {descriptor.size} were promised",
                code="size-mismatch",
                subject=descriptor.digest,
            )
        return fd

    def ingest(self, ref: str, expected: Descriptor | None = None) -> LocalIngest:
        """Begin or resume. Raises Unavailable, Invalid, Exhausted."""
        if expected is not None:
            parse_digest(expected.digest)
            self._touch(expected.digest)
        directory = self._directory(ref)
        partial = directory / "partial"
        with self._directories, disk_faults(f"content {ref!r}"):
            try:
                os.mkdir(directory, 0o700)
            except FileExistsError:
                pass
            fd = lock_partial(partial, ref, create=True)
            try:
                before = self._read_ref(directory)
                if before is None or before.ref != ref or _promise(before.expected) != _promise(expected):
                    os.ftruncate(fd, 0)
                    write_record(directory / "ref", _Ref(ref, expected), durable=False)
            except BaseException:
                os.close(fd)
                raise
        try:
            return LocalIngest(
                ref, fd, expected, lambda digest: self._publish(directory, digest), lambda: self._remove(directory)
            )
        except BaseException:
            os.close(fd)
            raise

    def ingests(self) -> list[IngestStatus]:
        """In no order."""
        out = []
        for name in os.listdir(self._ingests):
            directory = self._ingests / name
            record = self._read_ref(directory)
            try:
                found = os.lstat(directory / "partial")
            except (FileNotFoundError, NotADirectoryError):
                continue
            if record is not None:
                out.append(IngestStatus(record.ref, found.st_size, record.expected, found.st_mtime))
        return out

    def abort(self, ref: str) -> None:
        """Raises NotFound, Unavailable."""
        directory = self._directory(ref)
        with self._directories:
            try:
                fd = lock_partial(directory / "partial", ref, create=False)
            except FileNotFoundError:
                raise NotFound(
                    f"no content is being written as {ref!r}", code="ingest-not-found", subject=ref
                ) from None
            try:
                self._remove_locked(directory)
            finally:
                os.close(fd)

    def walk(self) -> Iterator[BlobInfo]:
        """Every committed blob."""
        for algorithm in ("sha256", "sha512"):
            try:
                entries = os.scandir(self._blobs / algorithm)
            except FileNotFoundError:
                continue
            with entries:
                for entry in entries:
                    try:
                        digest = parse_digest(f"{algorithm}:{entry.name}")
                        found = entry.stat(follow_symlinks=False)
                    except (ProaError, FileNotFoundError):
                        continue
                    if stat.S_ISREG(found.st_mode):
                        yield BlobInfo(digest, found.st_size, found.st_mtime)

    def delete(self, digest: Digest) -> None:
        """Raises NotFound."""
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            raise _missing(digest) from None
        self.suspects.discard(digest)

    def tidy(self) -> int:
        """Remove ingest directories that a crash left without a readable ref or partial; returns how many."""
        count = 0
        for name in os.listdir(self._ingests):
            directory = self._ingests / name
            with self._directories:
                if self._read_ref(directory) is not None and os.path.lexists(directory / "partial"):
                    continue
                try:
                    fd = lock_partial(directory / "partial", name, create=True)
                except Unavailable:
                    continue
                try:
                    self._remove_locked(directory)
                    count += 1
                finally:
                    os.close(fd)
        return count

    def _directory(self, ref: str) -> Path:
        return self._ingests / sha256(ref.encode(errors="surrogateescape")).hexdigest()[:40]

    @staticmethod
    def _read_ref(directory: Path) -> _Ref | None:
        try:
            return read_record(directory / "ref", _Ref)
        except (NotFound, Corrupt, NotADirectoryError):
            return None

    def _publish(self, directory: Path, digest: Digest) -> None:
        target = self.path(digest)
        self._touch(digest)
        if digest_algorithm(digest) != "sha256":
            make_private(target.parent)
        # One step for who opens the same ref next: it finds the partial locked, or no directory.
        with self._directories:
            # Also when the store has the digest already: what was just verified replaces what a bad disk may have
            # changed.
            os.rename(directory / "partial", target)
            failpoint("content.before-tidy")
            self._remove_locked(directory)
        fsync_directory(target.parent)
        self.suspects.discard(digest)

    def _remove(self, directory: Path) -> None:
        with self._directories:
            self._remove_locked(directory)

    @staticmethod
    def _remove_locked(directory: Path) -> None:
        try:
            for name in os.listdir(directory):
                os.unlink(directory / name)
            os.rmdir(directory)
        except FileNotFoundError:
            pass


def _promise(descriptor: Descriptor | None) -> tuple[str, int] | None:
    return None if descriptor is None else (descriptor.digest, descriptor.size)


def _missing(digest: str) -> NotFound:
    return NotFound(f"content {digest} is not in the store", code="content-not-found", subject=digest)
