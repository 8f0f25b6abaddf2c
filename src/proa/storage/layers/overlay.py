"""Overlayfs's marks on disk, and the OCI layer format's marks in archives (image-spec layer.md, "Whiteouts")."""

from __future__ import annotations

import errno
import os
import stat

from proa.linux.process import in_user_namespace

__all__ = [
    "OPAQUE",
    "OPAQUE_ENTRY",
    "TRUSTED",
    "USER",
    "WHITEOUT_PREFIX",
    "attribute_prefix",
    "in_user_namespace",
    "is_opaque",
    "is_whiteout",
    "kept_xattr",
    "make_whiteout",
    "set_opaque",
]

# Name space of overlay's extended attributes: `user.` in mounts with `userxattr`, the way of user namespaces.
TRUSTED = "trusted.overlay."
USER = "user.overlay."
OPAQUE = "opaque"

WHITEOUT_PREFIX = b".wh."
OPAQUE_ENTRY = b".wh..wh..opq"

_NO_ATTRIBUTE = (errno.ENODATA, errno.ENOTSUP, errno.EPERM)


def attribute_prefix() -> str:
    """How overlay's attributes are named where this process can mount."""
    return USER if in_user_namespace() else TRUSTED


def is_whiteout(st: os.stat_result) -> bool:
    """Whether a file of an overlay layer says "nothing here": a character device 0:0."""
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def make_whiteout(dir_fd: int, name: bytes) -> None:
    """Hide `name` of the layers below. Needs no capability since Linux 5.8."""
    os.mknod(name, stat.S_IFCHR, 0, dir_fd=dir_fd)


def is_opaque(dir_fd: int, prefix: str = TRUSTED) -> bool:
    """Whether a directory of an overlay layer hides what the layers below have in it."""
    try:
        return os.getxattr(dir_fd, prefix + OPAQUE) == b"y"
    except OSError as error:
        if error.errno not in _NO_ATTRIBUTE:
            raise
        return False


def set_opaque(dir_fd: int, prefix: str = TRUSTED) -> None:
    """Make a directory hide what the layers below have in it."""
    os.setxattr(dir_fd, prefix + OPAQUE, b"y")


def kept_xattr(name: bytes) -> bool:
    """Whether an extended attribute belongs to the layer, and not to the host or to overlay itself.

    An archive that could set `trusted.overlay.redirect` would choose what other layers show.
    """
    if name.startswith(b"user."):
        return not name.startswith(b"user.overlay.")
    return name in (b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")
