"""Unpack layers in worker processes: the engine's side.

    with Unpacker() as unpacker:
        result = unpacker.unpack(blob_fd, "gzip", target, parents)

A layer archive is hostile input for a decompressor, a parser and the file system. So it is handled by a process that
can reach nothing but the layer's directory (`worker`), forked by a warm one (`zygote`) that starts with the first
layer. Killing it is how to cancel.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from proa.errors import Invalid, from_record
from proa.linux.process import has_one_id
from proa.oci import Digest
from proa.storage.layers import overlay
from proa.storage.layers.budget import DEFAULT_BUDGET, Budget
from proa.storage.layers.decompress import COMPRESSIONS
from proa.storage.layers.workers import UNPACK, Workers

__all__ = ["UnpackResult", "Unpacker"]

Progress = Callable[[int], None]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class UnpackResult(NamedTuple):
    """diff_id: digest of the uncompressed archive, tar_bytes long. size_bytes: the sum of its files' sizes, what Docker
    calls the layer's size. entries: archive members. inodes: files made."""

    diff_id: Digest
    size_bytes: int
    entries: int
    inodes: int
    tar_bytes: int


class Unpacker:
    """Unpacks any number of layers at the same time, from any thread; one zygote process per instance.

    budget: limits on every layer. keep_owner=False gives all files to this process's ids, for a user namespace with a
    single id.
    """

    def __init__(
        self, *, budget: Budget = DEFAULT_BUDGET, keep_owner: bool = True, workers: Workers | None = None
    ) -> None:
        self._budget = budget
        self._keep_owner = keep_owner
        self._workers = workers or Workers()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def unpack(
        self,
        source: BinaryIO | int,
        compression: str,
        target: Path,
        parents: Sequence[Path] = (),
        *,
        marks: bool = True,
        admitted: bool = False,
        inventory: Path | None = None,
        meanwhile: Callable[[], None] | None = None,
        progress: Progress | None = None,
        cancelled: threading.Event | None = None,
    ) -> UnpackResult:
        """Apply one layer to the empty directory `target`.

        source:      a stream of the blob (its `read` is called here, so unpacking can follow a download), or the fd of
                     a file whose bytes are already verified: the worker then reads it itself from its current offset,
                     which the call moves. The fd stays open and must not be shared with another reader meanwhile.
        compression: "none", "gzip", "zstd", "auto" to go by the first bytes, or "trusted" for a plain archive of our
                     own whose digest the caller takes: no process decodes it, and the result has none.
        parents:     the directories of all layers below, uppermost first (as overlay's lowerdir). They give implied
                     directories their attributes, hard links their targets, and whiteouts their sense.
        marks:       False for an archive that is no layer: names that begin with `.wh.` are names like others.
        admitted:    a blob of our own, or one that was let in before: how well it was packed does not matter.
        inventory:   the file to write a list of what was made to, with checksums (see `inventory`); durable.
        meanwhile:   called when all files are there and only the inventory is still being written.
        progress:    called now and then with the count of compressed bytes consumed so far.
        cancelled:   when set, the worker is killed.

        The caller compares diff_id, makes the files durable, and on an error deletes the directory: no worker writes to
        it any more when the call returns. Raises Corrupt, Invalid, Unsupported or Exhausted for a bad archive (codes
        `layer-…`, `tar-…`, `pax-…`), Denied, Exhausted or Unavailable from the file system, Cancelled, and whatever
        `source.read` raises.
        """
        if compression not in (*COMPRESSIONS, "trusted"):
            raise Invalid(f"unknown layer compression {compression!r}", code="layer-compression")
        directories: list[int] = []
        listed: list[int] = []
        try:
            directories.extend(os.open(path, _DIRECTORY) for path in (target, *parents))
            if inventory is not None:
                listed = [os.open(inventory, _NEW_FILE, 0o600)]
            with self._workers.fork(UNPACK) as job:
                data_fd = source if isinstance(source, int) else None
                budget = self._budget.admitted if admitted else self._budget
                job.send(self._job(compression, len(parents), marks, budget), directories, data_fd, listed)
                answer = job.attend(source, progress, cancelled)
                if meanwhile is not None and "error" not in answer:
                    meanwhile()
                for fd in listed if "error" not in answer else ():
                    answer = job.answer(cancelled)
                    os.fsync(fd)
        finally:
            for fd in (*directories, *listed):
                os.close(fd)
        if (error := answer.get("error")) is not None:
            raise from_record(error)
        return UnpackResult(**answer["result"])

    def close(self) -> None:
        """End the zygote, and with it any worker still running."""
        self._workers.close()

    def _job(self, compression: str, lowers: int, marks: bool, budget: Budget) -> dict[str, Any]:
        return {
            "compression": compression,
            "decoded": compression != "trusted",
            "lowers": lowers,
            "budget": budget._asdict(),
            "keep_owner": self._keep_owner and not has_one_id(),
            "skip_devices": overlay.in_user_namespace(),
            "prefix": overlay.attribute_prefix(),
            "marks": marks,
        }
