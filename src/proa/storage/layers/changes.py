"""Write file trees as archives: what an overlay's upper directory changes (`diff`), a whole tree (`tar_tree`),
or one directory of it (`tar_directory`).

Nothing needs to be mounted: the stack of layer directories is read as overlay would show it. Directories are opened one
name at a time and never through a link, so a container that changes its files meanwhile cannot lead us elsewhere.

Archives are reproducible: entries sorted by name, times in seconds and clamped to `source_date_epoch`, no names of
users, PAX records only where needed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from proa.errors import Invalid
from proa.oci import Digest
from proa.storage.layers import overlay
from proa.storage.layers.archive import Sink, TarWriter
from proa.storage.layers.compress import CompressedLayerWriter
from proa.storage.layers.headers import Entry
from proa.storage.layers.names import display
from proa.storage.layers.trees import Trees

__all__ = ["DiffResult", "diff", "tar_directory", "tar_tree"]


class DiffResult(NamedTuple):
    """diff_id: digest of the archive, size_bytes long. entries: its members."""

    diff_id: Digest
    size_bytes: int
    entries: int


def diff(
    upper: Path | str,
    lowers: Sequence[Path | str],
    sink: Sink,
    *,
    source_date_epoch: int | None = None,
    exclude: Collection[bytes] = frozenset(),
    nanoseconds: bool = False,
    digest: bool = True,
) -> DiffResult:
    """Write what the overlay directory `upper` changes in `lowers` (uppermost first) as an OCI layer.

    exclude: paths without a leading slash that are left out with all below them, such as the empty files a runtime made
    to mount over; a directory whose only change is their coming and going is left out too. Files and directories that
    overlay copied up without a change are left out. Sockets are skipped. nanoseconds: keep whole times (PAX records).
    What hides nothing in `lowers` is not written as hiding. A CompressedLayerWriter as sink takes the digest itself;
    digest=False for another sink that does, whose owner then knows it: the result's is empty.
    Raises Invalid for a name that layers use as a mark, Conflict when a file shrinks while it is read, Unsupported for
    an upper directory written with redirect_dir or metacopy, OSError.
    """
    with Trees((upper, *lowers), source_date_epoch, nanoseconds) as trees:
        writer = _writer(sink, digest)
        _Diff(trees, writer, frozenset(exclude)).run()
        return _finish(writer, sink)


def tar_tree(
    layers: Path | str | Sequence[Path | str],
    sink: Sink,
    *,
    source_date_epoch: int | None = None,
    exclude: Collection[bytes] = frozenset(),
    nanoseconds: bool = False,
) -> DiffResult:
    """Write a whole file tree, given as one directory or as the directories of an overlay, uppermost first.

    Options and errors as in `diff`; the root itself is not a member.
    """
    if isinstance(layers, (str, Path)):
        layers = (layers,)
    with Trees(layers, source_date_epoch, nanoseconds) as trees:
        writer = _writer(sink)
        for path, index, status in trees.walk(frozenset(exclude)):
            trees.add(writer, path, index, status)
        return _finish(writer, sink)


def tar_directory(layers: Sequence[Path | str], path: bytes, sink: Sink) -> bool:
    """Write what is below one directory of an overlay's directories (uppermost first), itself as the root `.`.

    path: symbolic links on it are followed as in a chroot. Times are whole (PAX records), sockets are skipped.
    Returns False, with nothing written, when there is no directory. Errors as in `diff`.
    """
    with Trees(layers, nanoseconds=True) as trees:
        found = trees.descend(path)
        if found is None:
            return False
        writer = _writer(sink)
        trees.add(writer, trees.start, *found)
        for below, index, status in trees.walk():
            trees.add(writer, below, index, status)
        _finish(writer, sink)
        return True


def _writer(sink: Sink, digest: bool = True) -> TarWriter:
    return TarWriter(sink, digest=digest and not isinstance(sink, CompressedLayerWriter))


def _finish(writer: TarWriter, sink: Sink) -> DiffResult:
    diff_id = Digest(writer.finish())
    if isinstance(sink, CompressedLayerWriter):
        diff_id = sink.diff_id
    return DiffResult(diff_id, writer.size, writer.entries)


class _Frame:
    """A directory of the upper tree being walked."""

    __slots__ = ("levels", "names", "path", "saw_excluded", "status", "time_only")

    def __init__(self, path: bytes, levels: list[int], names: Iterator[bytes]) -> None:
        self.path = path
        self.levels = levels  # of the lower trees, those that merge with it
        self.names = names
        self.status: os.stat_result | None = None  # set while its own entry is not written
        self.time_only = False  # its entry is due for nothing but a new time
        self.saw_excluded = False


class _Diff:
    def __init__(self, trees: Trees, writer: TarWriter, exclude: frozenset[bytes]) -> None:
        self._trees = trees
        self._writer = writer
        self._exclude = exclude
        self._frames: list[_Frame] = []

    def run(self) -> None:
        self._enter(b"", list(range(1, self._trees.count)))
        while self._frames:
            frame = self._frames[-1]
            name = next(frame.names, None)
            if name is None:
                self._leave(frame)
                continue
            path = frame.path + b"/" + name if frame.path else name
            if path in self._exclude:
                frame.saw_excluded = True
                continue
            status = self._trees.status(0, path)
            if status is not None:
                self._visit(frame, path, name, status)

    def _enter(self, path: bytes, levels: list[int]) -> _Frame:
        frame = _Frame(path, levels, iter(sorted(self._trees.listing(0, path))))
        self._frames.append(frame)
        return frame

    def _leave(self, frame: _Frame) -> None:
        # Nothing below was written. A directory in which only an excluded file came or went has not changed.
        if frame.status is not None and frame.time_only and not frame.saw_excluded:
            self._write_pending()
        self._frames.pop()

    def _visit(self, frame: _Frame, path: bytes, name: bytes, status: os.stat_result) -> None:
        if name.startswith(overlay.WHITEOUT_PREFIX):
            raise Invalid(
                f"a layer cannot hold {display(path)!r}: names that start with .wh. mean deletions",
                code="layer-name",
                subject=display(path),
                hint="rename or remove the file",
            )
        lower = self._trees.shown(path, frame.levels)
        if overlay.is_whiteout(status):
            if lower is not None:
                self._add_mark(frame.path, overlay.WHITEOUT_PREFIX + name)
        elif stat.S_ISDIR(status.st_mode):
            self._visit_directory(frame, path, status, lower)
        elif lower is None or not self._trees.same_file(path, status, *lower):
            self._write_pending()
            self._trees.add(self._writer, path, 0, status)

    def _visit_directory(
        self, frame: _Frame, path: bytes, status: os.stat_result, lower: tuple[int, os.stat_result] | None
    ) -> None:
        opaque = overlay.is_opaque(self._trees.fd(0, path), self._trees.prefix)
        levels = [] if opaque else self._trees.merging(path, frame.levels)
        child = self._enter(path, levels)
        child.status = status
        same = lower is not None and not opaque and self._trees.same_directory(path, status, *lower)
        if lower is None or not same:
            self._write_pending()
        else:
            child.time_only = lower[1].st_mtime_ns != status.st_mtime_ns
        if opaque and lower is not None and stat.S_ISDIR(lower[1].st_mode):
            self._add_mark(path, overlay.OPAQUE_ENTRY)

    def _add_mark(self, parent: bytes, name: bytes) -> None:
        """A mark has no time: what it deletes is all it says."""
        self._write_pending()
        entry = Entry()
        entry.name = parent + b"/" + name if parent else name
        self._writer.add(entry)

    def _write_pending(self) -> None:
        """Write the directories on the way that are not written yet."""
        for frame in self._frames:
            if frame.status is not None:
                self._trees.add(self._writer, frame.path, 0, frame.status)
                frame.status = None
