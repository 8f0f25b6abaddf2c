"""Place the members of a tar archive in a directory of this process's root, over what is there.

As Docker does: directories are merged, anything else replaces what has its name; a link on the way to a member is
followed, which inside the root leads nowhere else. A file that something is mounted on is written in place.
"""

from __future__ import annotations

import errno
import os
import stat

from proa.errors import Conflict, Denied, Invalid, ProaError, Unsupported
from proa.storage.deletion import delete_tree
from proa.storage.layers.attributes import clamp_time, write_xattrs
from proa.storage.layers.failures import typed
from proa.storage.layers.headers import Entry
from proa.storage.layers.names import canonical, display, split
from proa.storage.layers.reader import TarReader
from proa.storage.layers.sparse import write_segments

__all__ = ["place"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REWRITE = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PARENT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_NODES = {"3": stat.S_IFCHR, "4": stat.S_IFBLK, "6": stat.S_IFIFO}


def place(
    reader: TarReader, root_fd: int, *, owner: tuple[int, int] | None, keep_kinds: bool, skip_devices: bool
) -> int:
    """Place every member below the directory `root_fd`; returns how many.

    owner: whose the files shall be, None for those the archive names. keep_kinds: refuse to replace a directory by
    something else or the other way round. Raises Invalid, Conflict, Denied, Exhausted, Unavailable and what the reader
    raises; what was placed before stays.
    """
    placing = _Placing(reader, root_fd, owner, keep_kinds, skip_devices)
    umask = os.umask(0)
    entry: Entry | None = None
    try:
        while (entry := reader.next()) is not None:
            placing.place(entry)
        placing.finish()
    except OSError as error:
        raise _failure(error, display(entry.name) if entry else "") from error
    finally:
        os.umask(umask)
        placing.close()
    return reader.entries


def _failure(error: OSError, subject: str) -> ProaError:
    if error.errno == errno.EROFS:
        return Denied(
            "container rootfs is marked read-only: the mount that holds "
            f"{subject!r} is, or the whole container was made with --read-only",
            code="root-readonly",
            subject=subject,
        )
    failure = typed(error, subject)
    failure.message = failure.message.replace("cannot unpack layer", "cannot write the file", 1)
    failure.code = "copy-failed"
    return failure


class _Placing:
    def __init__(
        self, reader: TarReader, root_fd: int, owner: tuple[int, int] | None, keep_kinds: bool, skip_devices: bool
    ) -> None:
        self._reader = reader
        self._root_fd = root_fd
        self._owner = owner
        self._keep_kinds = keep_kinds
        self._skip_devices = skip_devices
        self._parent = b""
        self._parent_fd = -1
        self._times: dict[bytes, int] = {}

    def close(self) -> None:
        self._forget_parent()

    def finish(self) -> None:
        """Give directories their times, now that nothing is made in them any more."""
        for path, time_ns in reversed(self._times.items()):
            try:
                fd = os.open(path, _PARENT | os.O_NOFOLLOW, dir_fd=self._root_fd)
            except OSError:
                continue  # replaced by a later member
            os.utime(fd, ns=(time_ns, time_ns))
            os.close(fd)

    def place(self, entry: Entry) -> None:
        path = canonical(entry.name)
        if not path:
            return  # the directory itself: as Docker, its attributes stay
        if entry.kind == "V":
            return
        if entry.kind not in "0123456" or not entry.kind:
            raise Unsupported(
                f"archive entry {display(entry.name)!r} is of unknown type {entry.kind!r}",
                code="archive-entry-type",
                subject=display(entry.name),
            )
        parent, base = split(path)
        dir_fd = self._open_parent(parent)
        existing = self._clear(dir_fd, base, entry)
        if entry.kind == "5":
            self._directory(entry, dir_fd, base, path, exists=existing is not None)
        elif entry.kind == "0":
            self._file(entry, dir_fd, base, in_place=existing is not None)
        elif existing is not None:
            raise Conflict(
                f"{display(entry.name)!r} cannot be replaced: something is mounted there",
                code="mount-point",
                subject=display(entry.name),
            )
        elif entry.kind == "1":
            self._hard_link(entry, dir_fd, base)
        elif entry.kind == "2":
            os.symlink(entry.linkname, base, dir_fd=dir_fd)
            self._own_name(entry, dir_fd, base)
        else:
            self._node(entry, dir_fd, base)

    # ---- the way there ---------------------------------------------------------------------------------------------

    def _open_parent(self, path: bytes) -> int:
        if not path:
            return self._root_fd
        if self._parent_fd >= 0 and self._parent == path:
            return self._parent_fd
        self._forget_parent()
        self._parent, self._parent_fd = path, self._open(path)
        return self._parent_fd

    def _forget_parent(self) -> None:
        if self._parent_fd >= 0:
            os.close(self._parent_fd)
            self._parent_fd = -1

    def _open(self, path: bytes) -> int:
        """Open a directory of the archive, making what is missing on the way."""
        try:
            return os.open(path, _PARENT, dir_fd=self._root_fd)
        except FileNotFoundError:
            pass
        parts = path.split(b"/")
        for count in range(1, len(parts) + 1):
            prefix = b"/".join(parts[:count])
            try:
                os.mkdir(prefix, 0o755, dir_fd=self._root_fd)
            except FileExistsError:
                continue
            if self._owner is not None:
                os.chown(prefix, *self._owner, dir_fd=self._root_fd, follow_symlinks=False)
        return os.open(path, _PARENT, dir_fd=self._root_fd)

    def _clear(self, dir_fd: int, base: bytes, entry: Entry) -> os.stat_result | None:
        """Make room for a member; returns what stays in its place: a directory to merge with, or a mount point."""
        try:
            status = os.stat(base, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        directory = stat.S_ISDIR(status.st_mode)
        if directory and entry.kind == "5":
            return status
        if self._keep_kinds and directory != (entry.kind == "5"):
            shown = display(entry.name)
            kinds = ("non-directory", "directory") if entry.kind == "5" else ("directory", "non-directory")
            raise Invalid(
                f'cannot overwrite {kinds[0]} "{shown}" with {kinds[1]} "{shown}"', code="kind-differs", subject=shown
            )
        self._forget_parent_below(entry)
        try:
            if directory:
                delete_tree(dir_fd, os.fsdecode(base))
            else:
                os.unlink(base, dir_fd=dir_fd)
        except OSError as error:
            if error.errno != errno.EBUSY or directory or not stat.S_ISREG(status.st_mode):
                raise
            return status
        return None

    def _forget_parent_below(self, entry: Entry) -> None:
        """What is replaced may be, or lead to, the directory that is held open."""
        if self._parent.startswith(canonical(entry.name)):
            self._forget_parent()

    # ---- one maker per type -----------------------------------------------------------------------------------------

    def _ids(self, entry: Entry) -> tuple[int, int]:
        return self._owner or (entry.uid, entry.gid)

    def _directory(self, entry: Entry, dir_fd: int, base: bytes, path: bytes, *, exists: bool) -> None:
        if not exists:
            os.mkdir(base, 0o700, dir_fd=dir_fd)
        fd = os.open(base, _PARENT | os.O_NOFOLLOW, dir_fd=dir_fd)
        try:
            os.fchown(fd, *self._ids(entry))
            os.fchmod(fd, entry.mode)
            if entry.xattrs:
                write_xattrs(fd, entry.xattrs)
        finally:
            os.close(fd)
        self._times[path] = clamp_time(entry.mtime_ns)

    def _file(self, entry: Entry, dir_fd: int, base: bytes, *, in_place: bool) -> None:
        fd = os.open(base, _REWRITE if in_place else _CREATE, 0o600, dir_fd=dir_fd)
        try:
            if in_place and not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Conflict(f"{display(entry.name)!r} changed meanwhile", code="file-changed")
            if entry.segments is not None:
                write_segments(fd, entry, self._reader.data())
            else:
                for piece in self._reader.data() if entry.size else ():
                    written = 0
                    while written < len(piece):
                        written += os.write(fd, piece[written:])
            # In this order: writing and chown(2) clear the special bits and capabilities.
            os.fchown(fd, *self._ids(entry))
            os.fchmod(fd, entry.mode)
            if entry.xattrs:
                write_xattrs(fd, entry.xattrs)
            time_ns = clamp_time(entry.mtime_ns)
            os.utime(fd, ns=(time_ns, time_ns))
        finally:
            os.close(fd)

    def _hard_link(self, entry: Entry, dir_fd: int, base: bytes) -> None:
        parent, name = split(canonical(entry.linkname))
        source = os.open(parent, _PARENT, dir_fd=self._root_fd) if parent else os.dup(self._root_fd)
        try:
            os.link(name, base, src_dir_fd=source, dst_dir_fd=dir_fd, follow_symlinks=False)
        finally:
            os.close(source)

    def _node(self, entry: Entry, dir_fd: int, base: bytes) -> None:
        kind = _NODES[entry.kind]
        if kind == stat.S_IFIFO:
            os.mkfifo(base, entry.mode, dir_fd=dir_fd)
        else:
            if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
                shown = display(entry.name)
                raise Invalid(
                    f"archive entry {shown!r} has an impossible device number", code="tar-number", subject=shown
                )
            if self._skip_devices:
                return
            os.mknod(base, kind | entry.mode, os.makedev(entry.major, entry.minor), dir_fd=dir_fd)
        self._own_name(entry, dir_fd, base)

    def _own_name(self, entry: Entry, dir_fd: int, base: bytes) -> None:
        """Owner and time of a file that cannot be opened."""
        os.chown(base, *self._ids(entry), dir_fd=dir_fd, follow_symlinks=False)
        if entry.kind != "2" and entry.mode & _SPECIAL_BITS:
            os.chmod(base, entry.mode, dir_fd=dir_fd)
        time_ns = clamp_time(entry.mtime_ns)
        os.utime(base, ns=(time_ns, time_ns), dir_fd=dir_fd, follow_symlinks=False)
