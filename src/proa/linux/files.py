"""Files: openat2(2) and other calls on fds and directories that Python's os lacks."""

from __future__ import annotations

import errno
import os
import struct

from proa.linux._libc import Path, buffer, call, fail, get_errno, path_bytes, syscall
from proa.linux.mount import AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

RENAME_NOREPLACE = 0x1
RENAME_EXCHANGE = 0x2
RENAME_WHITEOUT = 0x4

CLOSE_RANGE_UNSHARE = 0x2
CLOSE_RANGE_CLOEXEC = 0x4
ALL_FDS = 0xFFFFFFFF

SYNC_FILE_RANGE_WRITE = 0x2

STATX_BASIC_STATS = 0x7FF
STATX_ATTR_MOUNT_ROOT = 0x2000

# struct open_how { u64 flags, mode, resolve; }
OPEN_HOW = struct.Struct("=QQQ")
# struct statx is 256 bytes; stx_mask at 0, stx_attributes at 8.
STATX_SIZE = 256
_STATX_MASK_AND_ATTRIBUTES = struct.Struct("=IIQ")

_getcwd = syscall("getcwd")
_openat2 = syscall("openat2")
_close_range = syscall("close_range")
_renameat2 = syscall("renameat2")
_syncfs = call("syncfs")
_sync_file_range = call("sync_file_range")
_statx = call("statx")


def openat2(dir_fd: int, path: Path, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); always close-on-exec. A lookup that raced with a rename (EAGAIN) is tried again, up to 128 times."""
    raw = path_bytes(path)
    how = OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    fd = -1
    for _ in range(128):
        fd = _openat2(dir_fd, raw, how, OPEN_HOW.size)
        if fd >= 0 or get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    if fd < 0:
        fail("openat2", path)
    return fd


def close_range(first: int, last: int = ALL_FDS, flags: int = 0) -> None:
    """close_range(2): close fds first..last, or with CLOSE_RANGE_CLOEXEC mark them close-on-exec."""
    if _close_range(first, last, flags) < 0:
        fail("close_range")


def close_all_but(kept: Iterable[int], first: int = 3) -> None:
    """Close this process's descriptors from `first` on, except `kept`.

    Unlike os.closerange, which an interpreter built for older systems does by closing each number there may be.
    """
    for fd in sorted(kept):
        if fd > first:
            close_range(first, fd - 1)
        first = max(first, fd + 1)
    close_range(first)


def getcwd() -> bytes:
    """getcwd(2) itself: unlike os.getcwd it shows `(unreachable)/…` for a directory outside this process's root."""
    answer = buffer(4096)
    length = _getcwd(answer, len(answer))
    if length < 0:
        fail("getcwd")
    return answer.raw[: length - 1]


def renameat2(old_dir_fd: int, old: Path, new_dir_fd: int, new: Path, flags: int = 0) -> None:
    """renameat2(2) with RENAME_NOREPLACE, RENAME_EXCHANGE or RENAME_WHITEOUT."""
    if _renameat2(old_dir_fd, path_bytes(old), new_dir_fd, path_bytes(new), flags) < 0:
        fail("renameat2", old, new)


def syncfs(fd: int) -> None:
    """syncfs(2): write back everything of the file system that `fd` is on."""
    if _syncfs(fd) < 0:
        fail("syncfs")


def start_writeback(fd: int, offset: int = 0, size: int = 0) -> None:
    """sync_file_range(2): begin writing dirty pages (size 0: to the end) without waiting. No durability by itself."""
    if _sync_file_range(fd, offset, size, SYNC_FILE_RANGE_WRITE) < 0:
        fail("sync_file_range")


def is_mount_root(fd: int, path: Path = "") -> bool:
    """Whether a file is the root of a mount."""
    answer = buffer(STATX_SIZE)
    raw = path_bytes(path)
    flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (0 if raw else AT_EMPTY_PATH)
    if _statx(fd, raw, flags, STATX_BASIC_STATS, answer) < 0:
        fail("statx", path or None)
    return bool(_STATX_MASK_AND_ATTRIBUTES.unpack_from(answer, 0)[2] & STATX_ATTR_MOUNT_ROOT)
