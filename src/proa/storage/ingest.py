"""One blob being written into a LocalContentStore."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from proa.errors import Cancelled, Corrupt, Internal, ProaError, Unavailable
from proa.linux.files import start_writeback
from proa.oci import Descriptor, Digest, Verifier, digest_algorithm, parse_digest
from proa.storage.failpoint import failpoint
from proa.storage.layers.zeros import is_hole
from proa.storage.readers import Follower, Growth, as_binary
from proa.storage.records import disk_faults

_CHUNK = 1 << 20
# The kernel is asked to write back this often, so that the fsync at the end finds little left to do.
_WRITEBACK = 8 << 20


def lock_partial(path: Path, ref: str, *, create: bool) -> int:
    """Open `partial` at `path` and flock it. Raises Unavailable when it is open elsewhere, FileNotFoundError."""
    while True:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                current = os.stat(path).st_ino == os.fstat(fd).st_ino
            except FileNotFoundError:
                current = False
            if current:
                return fd
        except BlockingIOError:
            os.close(fd)
            raise Unavailable(
                f"content {ref!r} is being written by another transfer", code="ingest-busy", subject=ref
            ) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # committed or aborted between open and flock: look again


class LocalIngest:
    """See content.Ingest. `publish(fd, digest)` gives the verified, durable file its name; `drop()` removes it."""

    def __init__(
        self,
        ref: str,
        fd: int,
        expected: Descriptor | None,
        publish: Callable[[Digest], None],
        drop: Callable[[], None],
    ) -> None:
        self.ref = ref
        self._fd = fd
        self._expected = expected
        self._publish = publish
        self._drop = drop
        self._lock = threading.Lock()
        self._verifier = self._new_verifier(expected.digest if expected else None)
        offset = os.fstat(fd).st_size
        if expected is not None and offset > expected.size:
            os.ftruncate(fd, 0)
            offset = 0
        if offset:
            self._hash_from_start(offset)
        self._offset = offset
        self._written_back = offset
        self._growth = Growth(offset)

    @property
    def offset(self) -> int:
        """Where the next write goes."""
        return self._offset

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append all of `data`; hashing happens here, outside the interpreter's lock for chunks over 2 KiB.

        Zeros become holes.
        """
        with self._lock:
            fd = self._open_fd()
            view = memoryview(data).cast("B")
            end = self._offset + len(view)
            if self._expected is not None and end > self._expected.size:
                raise Corrupt(
                    f"content {self._expected.digest} is longer than its {self._expected.size} bytes",
                    code="size-mismatch",
                    subject=self._expected.digest,
                )
            with disk_faults(f"content {self.ref!r}"):
                done = 0
                if is_hole(view):
                    # Down first: a write that failed may have left something there.
                    os.ftruncate(fd, self._offset)
                    os.ftruncate(fd, end)
                    done = len(view)
                while done < len(view):
                    # Positioned, so that a write that failed half-way is overwritten by its repetition.
                    done += os.pwrite(fd, view[done:], self._offset + done)
            self._verifier.update(view)
            self._offset = end
            self._growth.advance(end)
            if end - self._written_back >= _WRITEBACK:
                start_writeback(fd, self._written_back, end - self._written_back)
                self._written_back = end
        failpoint("ingest.after-write")

    def commit(self, size: int | None = None, digest: Digest | None = None) -> Digest:
        """Verify, fsync, rename, fsync the directory: in this order, and only then is the blob there."""
        with self._lock:
            fd = self._open_fd()
            try:
                found = self._verify(size, digest)
                self._growth.complete()
                with disk_faults(f"content {self.ref!r}"):
                    os.ftruncate(fd, self._offset)
                    os.fchmod(fd, 0o444)
                    self._flush(fd)
                    failpoint("content.before-rename")
                    self._publish(found)
                    failpoint("content.after-rename")
            except ProaError as e:
                self._growth.fail(e)
                if isinstance(e, Corrupt) and e.code != "size-short":
                    self._drop()
                raise
            finally:
                self._close()
        return found

    def follow(self) -> BinaryIO:
        """A reader from the first byte, with a descriptor of its own."""
        with self._lock:
            # Opened anew: a duplicate would share the flock and keep the ref busy after this ingest is closed.
            fd = os.open(f"/proc/self/fd/{self._open_fd()}", os.O_RDONLY | os.O_CLOEXEC)
            return as_binary(Follower(fd, self._growth))

    def close(self) -> None:
        """Keep what is there for a later ingest of the same ref."""
        with self._lock:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _flush(self, fd: int) -> None:
        try:
            os.fsync(fd)
        except OSError:
            # The kernel has dropped what it could not write and calls it clean: read again it would look whole, and
            # the next fsync would succeed.
            self._drop()
            raise

    def _open_fd(self) -> int:
        if self._fd < 0:
            raise Internal(f"ingest {self.ref!r} is closed", code="ingest-closed", subject=self.ref)
        return self._fd

    def _close(self) -> None:
        if self._fd >= 0:
            self._growth.fail(
                Cancelled(f"content {self.ref!r} was not written to its end", code="ingest-stopped", subject=self.ref)
            )
            os.close(self._fd)
            self._fd = -1

    def _verify(self, size: int | None, digest: Digest | None) -> Digest:
        if digest is not None:
            parse_digest(digest)
            if self._expected is not None and digest != self._expected.digest:
                raise Corrupt(
                    f"content {self.ref!r} was promised as {self._expected.digest} and is committed as {digest}",
                    code="digest-mismatch",
                )
            if digest_algorithm(digest) != digest_algorithm(self._verifier.digest):
                self._verifier = self._new_verifier(digest)
                self._hash_from_start(self._offset)
        for wanted in (size, self._expected.size if self._expected else None):
            if wanted is not None and self._offset != wanted:
                raise Corrupt(
                    f"content {self.ref!r} has {self._offset} bytes, {wanted} were promised",
                    code="size-short" if self._offset < wanted else "size-mismatch",
                )
        self._verifier.expected = digest or (self._expected.digest if self._expected else None)
        return self._verifier.finish()

    @staticmethod
    def _new_verifier(digest: Digest | None) -> Verifier:
        return Verifier(digest)

    def _hash_from_start(self, length: int) -> None:
        # The running hash is not saved: bytes that came back from disk after a crash may not be those written.
        buffer = bytearray(min(_CHUNK, length))
        view = memoryview(buffer)
        position = 0
        while position < length:
            n = os.preadv(self._fd, [view[: length - position]], position)
            if n == 0:
                raise Corrupt(f"the partial of {self.ref!r} was cut short", code="size-mismatch")
            self._verifier.update(view[:n])
            position += n


__all__ = ["LocalIngest", "lock_partial"]
