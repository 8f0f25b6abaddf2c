"""landlock(7): let this process (and its children) write only below given directories."""

from __future__ import annotations

import errno
import os
import struct

from proa.linux._libc import fail, syscall

LANDLOCK_CREATE_RULESET_VERSION = 0x1
LANDLOCK_RULE_PATH_BENEATH = 1

ACCESS_FS_EXECUTE = 1 << 0
ACCESS_FS_WRITE_FILE = 1 << 1
ACCESS_FS_READ_FILE = 1 << 2
ACCESS_FS_READ_DIR = 1 << 3
ACCESS_FS_REFER = 1 << 13
ACCESS_FS_TRUNCATE = 1 << 14
ACCESS_FS_IOCTL_DEV = 1 << 15
# remove_dir remove_file make_{char,dir,reg,sock,fifo,block,sym}
ACCESS_FS_MODIFY_V1 = sum(1 << bit for bit in range(4, 13))
ACCESS_FS_WRITE_V1 = ACCESS_FS_WRITE_FILE | ACCESS_FS_MODIFY_V1

# struct landlock_ruleset_attr { u64 handled_access_fs, handled_access_net, scoped; }
RULESET_ATTR = struct.Struct("=QQQ")
# struct landlock_path_beneath_attr { u64 allowed_access; s32 parent_fd; } packed
PATH_BENEATH_ATTR = struct.Struct("=Qi")

_create_ruleset = syscall("landlock_create_ruleset")
_add_rule = syscall("landlock_add_rule")
_restrict_self = syscall("landlock_restrict_self")


def abi_version() -> int:
    """The kernel's landlock version; 0 when it has none."""
    version = _create_ruleset(None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    return max(version, 0)


def create_ruleset(handled_fs: int) -> int:
    """A ruleset that denies the `handled_fs` accesses unless a rule allows them; returns its fd."""
    fd = _create_ruleset(struct.pack("=Q", handled_fs), 8, 0)
    if fd < 0:
        fail("landlock_create_ruleset")
    return fd


def add_path_beneath(ruleset_fd: int, dir_fd: int, allowed_fs: int) -> None:
    """Allow accesses at and below a directory or file."""
    if _add_rule(ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, PATH_BENEATH_ATTR.pack(allowed_fs, dir_fd), 0) < 0:
        fail("landlock_add_rule")


def restrict_self(ruleset_fd: int) -> None:
    """Apply the ruleset for good. Needs no_new_privs or CAP_SYS_ADMIN."""
    if _restrict_self(ruleset_fd, 0) < 0:
        fail("landlock_restrict_self")


def writable_only(*dir_fds: int) -> bool:
    """Forbid this process every change of the file system but below `dir_fds`; False where there is no landlock."""
    version = abi_version()
    if not version:
        return False
    access = ACCESS_FS_WRITE_V1
    if version >= 2:
        access |= ACCESS_FS_REFER
    if version >= 3:
        access |= ACCESS_FS_TRUNCATE
    ruleset = create_ruleset(access)
    try:
        for fd in dir_fds:
            add_path_beneath(ruleset, fd, access)
        restrict_self(ruleset)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return False
        raise
    finally:
        os.close(ruleset)
    return True
