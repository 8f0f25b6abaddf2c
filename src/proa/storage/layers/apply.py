"""Apply a layer archive to a directory, so that overlayfs shows what the layer says.

The directory is new and nobody else's until it is done. Every file is made relative to an open directory of the layer;
links inside the archive are followed as in a chroot at the directory, so no entry reaches outside, even where the
caller is not confined. In the engine this runs in a confined worker process all the same (see `unpacker`).

Rules (image-spec layer.md; where it is silent, what Docker and containerd do): later entries win; whiteouts hide lower
layers only, whatever their place in the archive; a device 0:0 is overlay's own mark and never taken from an archive.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from proa.errors import Invalid, Unsupported
from proa.storage.deletion import delete_tree
from proa.storage.layers import overlay
from proa.storage.layers.attributes import (
    Attributes,
    Owner,
    clamp_time,
    write_xattrs,
    write_xattrs_at,
)
from proa.storage.layers.budget import DEFAULT_BUDGET, Budget
from proa.storage.layers.directories import Directories
from proa.storage.layers.failures import typed
from proa.storage.layers.hard_links import find_target
from proa.storage.layers.headers import Entry
from proa.storage.layers.inventory import crc32, sum_xattrs
from proa.storage.layers.names import canonical, display, split
from proa.storage.layers.reader import TarReader
from proa.storage.layers.sparse import write_segments
from proa.storage.layers.zeros import is_hole

__all__ = ["Applied", "apply"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_AUFS_METADATA = b".wh..wh."


class Applied(NamedTuple):
    """What an archive came to: bytes in files, archive members, inodes made, and sums of files by inode number."""

    size_bytes: int
    entries: int
    inodes: int
    sums: dict[int, int]


def apply(
    chunks: Iterator[bytes | memoryview],
    root_fd: int,
    lower_fds: Sequence[int] = (),
    *,
    budget: Budget = DEFAULT_BUDGET,
    keep_owner: bool = True,
    skip_devices: bool = False,
    prefix: str = overlay.TRUSTED,
    marks: bool = True,
) -> Applied:
    """Apply an uncompressed archive to the empty directory `root_fd`, on top of `lower_fds` (uppermost first).

    marks=False takes names that begin with `.wh.` for what they are: the archive is no layer. keep_owner=False leaves
    every file with the ids of this process; skip_devices passes over device nodes, which a user namespace cannot make;
    `prefix` names overlay's attributes. Sets the process's umask while it runs. The stream is read to its end. Raises
    Invalid, Corrupt, Exhausted, Unsupported for what is wrong with the archive; Denied, Exhausted, Unavailable for what
    is wrong with the file system.
    """
    previous_umask = os.umask(0)
    applier = _Applier(root_fd, lower_fds, TarReader(chunks, budget), keep_owner, skip_devices, prefix, marks)
    try:
        return applier.run()
    finally:
        applier.close()
        os.umask(previous_umask)


class _Applier:
    def __init__(
        self,
        root_fd: int,
        lower_fds: Sequence[int],
        reader: TarReader,
        keep_owner: bool,
        skip_devices: bool,
        prefix: str,
        marks: bool,
    ) -> None:
        self._root_fd = root_fd
        self._reader = reader
        self._owner = Owner(*_own_ids(root_fd), keep=keep_owner)
        self._skip_devices = skip_devices
        self._marks = marks
        self._directories = Directories(root_fd, lower_fds, self._owner, prefix)
        self._size = 0
        self._inodes = 0
        # CRC-32 of what was written, for the inventory; an inode that is used again gets another one.
        self._sums: dict[int, int] = {}
        self._makers = {
            "0": self._file,
            "1": self._hard_link,
            "2": self._symlink,
            "3": self._node,
            "4": self._node,
            "5": self._directory,
            "6": self._node,
        }

    def close(self) -> None:
        self._directories.close()

    def run(self) -> Applied:
        directories = self._directories
        # A layer that does not describe the root keeps the root it is applied to.
        directories.made(b"", None)
        entry: Entry | None = None
        try:
            while (entry := self._reader.next()) is not None:
                self._apply(entry)
            self._inodes += directories.finish()
        except OSError as error:
            raise typed(error, display(entry.name) if entry else "") from error
        return Applied(self._size, self._reader.entries, self._inodes, self._sums)

    def _apply(self, entry: Entry) -> None:
        path = canonical(entry.name)
        if not path:
            self._root(entry)
            return
        parent, base = split(path)
        if self._marks and overlay.WHITEOUT_PREFIX in path and self._mark(path, parent, base, entry):
            return
        make = self._makers.get(entry.kind)
        if make is None:
            if entry.kind == "V":  # GNU volume label
                return
            raise Unsupported(
                f"archive entry {display(entry.name)!r} is of unknown type {entry.kind!r}",
                code="layer-entry-type",
                subject=display(entry.name),
            )
        self._directories.implied_mtime_ns = entry.mtime_ns
        fd, real = self._directories.open(parent)
        make(entry, fd, base, real + b"/" + base if real else base)

    def _root(self, entry: Entry) -> None:
        if entry.kind != "5":
            raise Invalid(
                f"archive entry {display(entry.name)!r} replaces the layer's root by something else",
                code="layer-root",
                subject=display(entry.name),
            )
        self._directories.describe(b"", _attributes(entry))

    # ---- marks ----------------------------------------------------------------------------------------------------

    def _mark(self, path: bytes, parent: bytes, base: bytes, entry: Entry) -> bool:
        """Handle a path with a whiteout prefix in it; False when it has none at the start of a part."""
        if path.startswith(_AUFS_METADATA) and path != overlay.OPAQUE_ENTRY:
            return True  # left over from images made on AUFS
        if any(part.startswith(overlay.WHITEOUT_PREFIX) for part in parent.split(b"/")):
            raise Invalid(
                f"archive puts files below the whiteout {display(path)!r}", code="layer-whiteout", subject=display(path)
            )
        if not base.startswith(overlay.WHITEOUT_PREFIX):
            return False
        name = base[len(overlay.WHITEOUT_PREFIX) :]
        if name in (b"", b".", b".."):
            raise Invalid(
                f"archive has a whiteout without a name: {display(path)!r}",
                code="layer-whiteout",
                subject=display(path),
            )
        self._directories.implied_mtime_ns = entry.mtime_ns
        if base == overlay.OPAQUE_ENTRY:
            _, real = self._directories.open(parent)
            if self._directories.has_lowers:
                self._directories.hide_below(real)
        elif not base.startswith(_AUFS_METADATA):
            self._whiteout(parent, name)
        return True

    def _whiteout(self, parent: bytes, name: bytes) -> None:
        """Hide a name of the lower layers; what this layer has under that name stays."""
        fd, real = self._directories.open(parent)
        child = real + b"/" + name if real else name
        if self._directories.hidden(child) or not self._directories.in_lower(child):
            return
        self._directories.white_out(child)
        try:
            overlay.make_whiteout(fd, name)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                self._directories.hide_below(child)
        else:
            self._inodes += 1

    # ---- one maker per type: (entry, fd of the parent, name in it, real path) ---------------------------------------

    def _file(self, entry: Entry, dir_fd: int, base: bytes, real: bytes) -> None:
        mode = entry.mode
        try:
            fd = os.open(base, _CREATE, mode & 0o777, dir_fd=dir_fd)
        except FileExistsError:
            self._clear(dir_fd, base, real)
            fd = os.open(base, _CREATE, mode & 0o777, dir_fd=dir_fd)
        total = 0
        try:
            if entry.segments is not None:
                write_segments(fd, entry, self._reader.data())
            elif entry.size:
                total = self._write(fd, entry.size)
            # In this order: writing and chown(2) clear the special bits and capabilities.
            if self._owner.differs(entry.uid, entry.gid):
                os.fchown(fd, entry.uid, entry.gid)
            if mode & _SPECIAL_BITS:
                os.fchmod(fd, mode)
            if entry.xattrs:
                write_xattrs(fd, entry.xattrs)
                total = sum_xattrs(fd, total)
            time_ns = clamp_time(entry.mtime_ns)
            os.utime(fd, ns=(time_ns, time_ns))
            inode = os.fstat(fd).st_ino
            if entry.segments is None:
                self._sums[inode] = total
            else:
                self._sums.pop(inode, None)  # read again for the inventory: holes count as zeros
        finally:
            os.close(fd)
        self._size += entry.size
        self._inodes += 1

    def _write(self, fd: int, size: int) -> int:
        """Write the entry's data; returns their CRC-32. Zeros become holes, so that a bomb of them takes no disk."""
        total = 0
        in_hole = False
        for piece in self._reader.data():
            total = crc32(piece, total)
            in_hole = is_hole(piece)
            if in_hole:
                os.lseek(fd, len(piece), os.SEEK_CUR)
                continue
            written = os.write(fd, piece)
            while written < len(piece):
                written += os.write(fd, piece[written:])
        if in_hole:
            os.ftruncate(fd, size)
        return total

    def _directory(self, entry: Entry, dir_fd: int, base: bytes, real: bytes) -> None:
        try:
            os.mkdir(base, entry.mode & 0o777 | 0o700, dir_fd=dir_fd)
        except FileExistsError:
            status = os.stat(base, dir_fd=dir_fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                self._directories.describe(real, _attributes(entry))
                return
            self._clear(dir_fd, base, real)
            os.mkdir(base, entry.mode & 0o777 | 0o700, dir_fd=dir_fd)
        self._directories.made(real, _attributes(entry))

    def _symlink(self, entry: Entry, dir_fd: int, base: bytes, real: bytes) -> None:
        target = entry.linkname
        if not target or b"\0" in target:
            raise Invalid(
                f"archive entry {display(entry.name)!r} is a symbolic link to nothing",
                code="layer-link",
                subject=display(entry.name),
            )
        try:
            os.symlink(target, base, dir_fd=dir_fd)
        except FileExistsError:
            self._clear(dir_fd, base, real)
            os.symlink(target, base, dir_fd=dir_fd)
        self._size += len(target)  # as lstat(2) and Docker count it
        self._own_name(entry, dir_fd, base)

    def _node(self, entry: Entry, dir_fd: int, base: bytes, real: bytes) -> None:
        kind = {"3": stat.S_IFCHR, "4": stat.S_IFBLK, "6": stat.S_IFIFO}[entry.kind]
        device = (
            os.makedev(entry.major, entry.minor) if 0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20 else -1
        )
        if device < 0:
            raise Invalid(
                f"archive entry {display(entry.name)!r} has an impossible device number",
                code="tar-number",
                subject=display(entry.name),
            )
        if kind == stat.S_IFCHR and device == 0:
            return  # would hide a file of a lower layer: only `.wh.` names may do that
        if kind != stat.S_IFIFO and self._skip_devices:
            return
        try:
            os.mknod(base, kind | entry.mode, device, dir_fd=dir_fd)
        except FileExistsError:
            self._clear(dir_fd, base, real)
            os.mknod(base, kind | entry.mode, device, dir_fd=dir_fd)
        self._own_name(entry, dir_fd, base)

    def _own_name(self, entry: Entry, dir_fd: int, base: bytes) -> None:
        """Owner and time of a file that cannot be opened."""
        if self._owner.differs(entry.uid, entry.gid):
            os.chown(base, entry.uid, entry.gid, dir_fd=dir_fd, follow_symlinks=False)
            if entry.kind != "2" and entry.mode & _SPECIAL_BITS:
                os.chmod(base, entry.mode, dir_fd=dir_fd)
        if entry.xattrs:
            write_xattrs_at(dir_fd, base, entry.xattrs)
        time_ns = clamp_time(entry.mtime_ns)
        os.utime(base, ns=(time_ns, time_ns), dir_fd=dir_fd, follow_symlinks=False)
        self._inodes += 1

    def _hard_link(self, entry: Entry, dir_fd: int, base: bytes, real: bytes) -> None:
        with find_target(entry, self._directories) as target:
            if target.index:
                # Layers share no inodes: the target becomes part of this one first, as overlay's copy-up does.
                self._inodes += 1
                target.bring_up(self._directories, self._owner)
                dir_fd, _ = self._directories.open(split(real)[0])  # it may have been closed meanwhile
            if target.path == real:
                return
            try:
                target.link(base, dir_fd)
            except FileExistsError:
                if target.is_same(os.stat(base, dir_fd=dir_fd, follow_symlinks=False)):
                    return
                self._clear(dir_fd, base, real)
                target.link(base, dir_fd)

    # ---- replacing ------------------------------------------------------------------------------------------------

    def _clear(self, dir_fd: int, base: bytes, real: bytes) -> None:
        """Remove what this layer already has under a name."""
        status = os.stat(base, dir_fd=dir_fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._directories.forget(real)
            delete_tree(dir_fd, os.fsdecode(base))
            return
        if stat.S_ISLNK(status.st_mode):
            self._directories.forget(real)
        os.unlink(base, dir_fd=dir_fd)
        self._inodes -= 1


def _attributes(entry: Entry) -> Attributes:
    return Attributes(entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.xattrs)


def _own_ids(dir_fd: int) -> tuple[int, int]:
    """The owner that new files in a directory get: not this process's group where the mount or a setgid bit says so."""
    st = os.fstat(dir_fd)
    if st.st_mode & stat.S_ISGID:
        os.fchmod(dir_fd, stat.S_IMODE(st.st_mode) & ~stat.S_ISGID)
    try:
        fd = os.open(b".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    except OSError:
        return os.geteuid(), os.getegid()
    try:
        st = os.fstat(fd)
    finally:
        os.close(fd)
    return st.st_uid, st.st_gid
