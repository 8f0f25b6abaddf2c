"""Mounts: mount(2), the fd-based mount API of Linux 5.2 and later, pivot_root(2), statfs(2).

Mount targets are held as fds: `move_mount` onto an fd has no path that could change under us.
"""

from __future__ import annotations

import os
import struct

from proa.linux._libc import Path, buffer, call, fail, path_bytes, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_DIRSYNC = 0x80
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000

MNT_FORCE = 0x1
MNT_DETACH = 0x2
MNT_EXPIRE = 0x4
UMOUNT_NOFOLLOW = 0x8

FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_BINARY = 2
FSCONFIG_SET_PATH = 3
FSCONFIG_SET_PATH_EMPTY = 4
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7

OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOVE_MOUNT_T_SYMLINKS = 0x10

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
TMPFS_MAGIC = 0x01021994
DEVPTS_SUPER_MAGIC = 0x1CD1
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270
OVERLAYFS_SUPER_MAGIC = 0x794C7630

# struct mount_attr { u64 attr_set, attr_clr, propagation, userns_fd; }
MOUNT_ATTR = struct.Struct("=QQQQ")
# struct statfs of 64-bit machines: f_type bsize blocks bfree bavail files ffree fsid[2] namelen frsize flags
STATFS = struct.Struct("=qqQQQQQiiqqq32x")

_mount = call("mount")
_umount2 = call("umount2")
_statfs = call("statfs")
_fstatfs = call("fstatfs")
_pivot_root = syscall("pivot_root")
_open_tree = syscall("open_tree")
_move_mount = syscall("move_mount")
_fsopen = syscall("fsopen")
_fsconfig = syscall("fsconfig")
_fsmount = syscall("fsmount")
_mount_setattr = syscall("mount_setattr")


def mount(
    source: Path | None, target: Path, fstype: str | None, flags: int, options: str | bytes | None = None
) -> None:
    """mount(2). `options` beyond 4095 bytes are refused by the kernel: use `fsopen` for long overlay mounts."""
    raw_source = None if source is None else path_bytes(source)
    raw_type = None if fstype is None else fstype.encode()
    raw_options = options.encode() if isinstance(options, str) else options
    if _mount(raw_source, path_bytes(target), raw_type, flags, raw_options) < 0:
        fail("mount", target)


def umount2(target: Path, flags: int = 0) -> None:
    """umount2(2)."""
    if _umount2(path_bytes(target), flags) < 0:
        fail("umount2", target)


def pivot_root(new_root: Path, put_old: Path) -> None:
    """pivot_root(2); `pivot_root(".", ".")` stacks the old root on the new one, to be detached next."""
    if _pivot_root(path_bytes(new_root), path_bytes(put_old)) < 0:
        fail("pivot_root", new_root)


def open_tree(dir_fd: int, path: Path, flags: int) -> int:
    """open_tree(2): with OPEN_TREE_CLONE, a detached copy of a mount (or, with AT_RECURSIVE, of a tree) as an fd."""
    fd = _open_tree(dir_fd, path_bytes(path), flags | OPEN_TREE_CLOEXEC)
    if fd < 0:
        fail("open_tree", path or None)
    return fd


def move_mount(from_fd: int, from_path: Path, to_fd: int, to_path: Path, flags: int = 0) -> None:
    """move_mount(2). An empty path means the fd itself; the *_EMPTY_PATH flags are added for it."""
    source, target = path_bytes(from_path), path_bytes(to_path)
    if not source:
        flags |= MOVE_MOUNT_F_EMPTY_PATH
    if not target:
        flags |= MOVE_MOUNT_T_EMPTY_PATH
    if _move_mount(from_fd, source, to_fd, target, flags) < 0:
        fail("move_mount", to_path or None)


def mount_setattr(
    dir_fd: int,
    path: Path,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
    recursive: bool = False,
) -> None:
    """mount_setattr(2) on `path` below `dir_fd`, or on the mount `dir_fd` itself when the path is empty.

    userns_fd: with MOUNT_ATTR_IDMAP, whose maps to use.
    """
    raw = path_bytes(path)
    flags = (0 if raw else AT_EMPTY_PATH) | (AT_RECURSIVE if recursive else 0)
    attributes = MOUNT_ATTR.pack(attr_set, attr_clr, propagation, userns_fd)
    if _mount_setattr(dir_fd, raw, flags, attributes, MOUNT_ATTR.size) < 0:
        fail("mount_setattr", path or None)


def fsopen(fstype: str) -> int:
    """fsopen(2): a configuration fd for a new superblock."""
    fd = _fsopen(fstype.encode(), FSOPEN_CLOEXEC)
    if fd < 0:
        fail("fsopen", fstype)
    return fd


def fsconfig_flag(fs_fd: int, key: str) -> None:
    """Set an option without value (`ro`, `noswap`)."""
    if _fsconfig(fs_fd, FSCONFIG_SET_FLAG, key.encode(), None, 0) < 0:
        _fail_fs(fs_fd, "fsconfig", key)


def fsconfig_string(fs_fd: int, key: str, value: str | bytes) -> None:
    """Set `key=value`. The kernel takes at most 255 bytes of value."""
    raw = value.encode() if isinstance(value, str) else value
    if b"\0" in raw:
        raise ValueError(f"embedded NUL in mount option {key}")
    if _fsconfig(fs_fd, FSCONFIG_SET_STRING, key.encode(), raw, 0) < 0:
        _fail_fs(fs_fd, "fsconfig", f"{key}={os.fsdecode(raw)}")


def fsconfig_create(fs_fd: int) -> None:
    """Create the superblock from the options set so far."""
    if _fsconfig(fs_fd, FSCONFIG_CMD_CREATE, None, None, 0) < 0:
        _fail_fs(fs_fd, "fsconfig", "create")


def fsmount(fs_fd: int, attrs: int = 0) -> int:
    """fsmount(2): a detached mount of the created superblock; the fd is also an O_PATH fd of its root."""
    fd = _fsmount(fs_fd, FSMOUNT_CLOEXEC, attrs)
    if fd < 0:
        _fail_fs(fs_fd, "fsmount", None)
    return fd


def _fail_fs(fs_fd: int, name: str, what: str | None) -> NoReturn:
    """Raise like `fail`, with the messages the kernel left on the configuration fd, which say what was wrong."""
    try:
        fail(name, what)
    except OSError as error:
        messages: list[str] = []
        try:
            while len(messages) < 8:
                messages.append(os.read(fs_fd, 512).decode(errors="replace").strip())
        except OSError:
            pass  # ENODATA: no more messages
        if messages:
            error.strerror = f"{error.strerror} ({'; '.join(messages)})"
        raise


def statfs_magic(path: Path) -> int:
    """The file system type (`f_type`) at `path`, to compare with the *_MAGIC constants."""
    answer = buffer(STATFS.size)
    if _statfs(path_bytes(path), answer) < 0:
        fail("statfs", path)
    return int(STATFS.unpack(answer.raw)[0])


def fstatfs_magic(fd: int) -> int:
    """The file system type (`f_type`) of an open file; works on O_PATH fds."""
    answer = buffer(STATFS.size)
    if _fstatfs(fd, answer) < 0:
        fail("fstatfs")
    return int(STATFS.unpack(answer.raw)[0])
