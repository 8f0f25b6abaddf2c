"""Ownership, mode, times and extended attributes of files, always through an fd."""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from proa.storage.layers.overlay import kept_xattr

__all__ = [
    "Attributes",
    "Owner",
    "clamp_time",
    "read_attributes",
    "read_xattrs",
    "read_xattrs_at",
    "write_attributes",
    "write_xattrs",
    "write_xattrs_at",
]

# What ext4 with 256-byte inodes can hold; other engines and file systems clamp likewise.
_MIN_NS = -(1 << 31) * 1_000_000_000
_MAX_NS = ((1 << 34) - (1 << 31) - 1) * 1_000_000_000

# Errors that mean "this file system (or this kind of file) has no such attributes".
_NOT_TAKEN = (errno.ENOTSUP, errno.EPERM, errno.EINVAL)


class Attributes(NamedTuple):
    """What a layer says about a file besides its content: permission bits, numeric owner, time, kept xattrs."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: dict[bytes, bytes] | None = None


class Owner(NamedTuple):
    """The ids that new files get by themselves; `keep` is false to leave every file with these."""

    uid: int
    gid: int
    keep: bool = True

    def differs(self, uid: int, gid: int) -> bool:
        """Whether a file that shall be of `uid` and `gid` needs a chown."""
        return self.keep and (uid != self.uid or gid != self.gid)


def clamp_time(mtime_ns: int) -> int:
    """The nearest time that file systems can store."""
    return min(max(mtime_ns, _MIN_NS), _MAX_NS)


def read_xattrs(fd: int) -> dict[bytes, bytes] | None:
    """The extended attributes of an open file that belong to a layer; None for none."""
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return None
    kept = {raw: os.getxattr(fd, raw) for raw in map(os.fsencode, names) if kept_xattr(raw)}
    return kept or None


def read_xattrs_at(dir_fd: int, name: bytes) -> dict[bytes, bytes] | None:
    """The same of a link, a device or a fifo, which cannot be opened."""
    path = b"/proc/self/fd/%d/%b" % (dir_fd, name)
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return None
    kept = {raw: os.getxattr(path, raw, follow_symlinks=False) for raw in map(os.fsencode, names) if kept_xattr(raw)}
    return kept or None


def read_attributes(fd: int) -> Attributes:
    """Those of an open file or directory."""
    st = os.fstat(fd)
    return Attributes(stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns, read_xattrs(fd))


def write_xattrs(fd: int | bytes, xattrs: dict[bytes, bytes]) -> None:
    """Set those that belong to a layer; the others are dropped silently, as are ACLs and user attributes that the file
    system does not take. `fd`: an open file, or the name of a link, device or fifo in the working directory."""
    options = {} if isinstance(fd, int) else {"follow_symlinks": False}
    for name, value in xattrs.items():
        if not kept_xattr(name):
            continue
        try:
            os.setxattr(fd, name, value, **options)
        except OSError as error:
            if error.errno == errno.ENOTSUP or (error.errno in _NOT_TAKEN and name != b"security.capability"):
                continue
            raise


def write_xattrs_at(dir_fd: int, name: bytes, xattrs: dict[bytes, bytes]) -> None:
    """The same for a link, a device or a fifo. Goes there by the working directory: a chroot has no /proc."""
    before = os.open(b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(dir_fd)
        try:
            write_xattrs(name, xattrs)
        finally:
            os.fchdir(before)
    finally:
        os.close(before)


def write_attributes(fd: int, wanted: Attributes, owner: Owner) -> None:
    """Make an open file's attributes as `wanted`, with few calls; the time last."""
    st = os.fstat(fd)
    if owner.keep and (st.st_uid != wanted.uid or st.st_gid != wanted.gid):
        os.fchown(fd, wanted.uid, wanted.gid)
        st = os.fstat(fd)
    if stat.S_IMODE(st.st_mode) != wanted.mode:
        os.fchmod(fd, wanted.mode)
    if wanted.xattrs:
        write_xattrs(fd, wanted.xattrs)
    time_ns = clamp_time(wanted.mtime_ns)
    os.utime(fd, ns=(time_ns, time_ns))
