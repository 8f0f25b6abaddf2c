"""What a file system's refusal means for the layer that was being applied."""

from __future__ import annotations

import errno
import os

from proa.errors import Denied, Exhausted, Invalid, ProaError, Unavailable

__all__ = ["typed"]


def typed(error: OSError, subject: str) -> ProaError:
    """The error to raise for `error`, which came while `subject` (a shown path, or empty) was made."""
    reason = os.strerror(error.errno or 0)
    at = f" at {subject!r}" if subject else ""
    message = f"cannot unpack layer{at}: {reason}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMLINK, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return Exhausted(message, code="layer-apply", subject=subject, errno=error.errno)
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return Invalid(message, code="layer-apply", subject=subject, errno=error.errno)
    if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS, errno.EINVAL):
        return Denied(
            message,
            code="layer-apply",
            subject=subject,
            hint="the owner may have no mapping in this user namespace, or the file system cannot store the attribute",
            errno=error.errno,
        )
    return Unavailable(message, code="layer-apply", subject=subject, errno=error.errno)
