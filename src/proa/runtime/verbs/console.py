"""Give the caller what it asked to be sent: a terminal's master, a pidfd (runc docs/terminals.md)."""

from __future__ import annotations

import os

from proa.errors import Unavailable
from proa.linux.sockets import connect_and_send

__all__ = ["pass_console"]


def pass_console(path: str, fd: int, *, close: bool = True) -> None:
    """Send a descriptor to the unix socket at `path`, with its name as data. Raises Unavailable."""
    try:
        connect_and_send(path, os.readlink(f"/proc/self/fd/{fd}").encode(), [fd])
    except OSError as error:
        text = f"nothing takes the descriptor at {path}: {error.strerror}"
        raise Unavailable(text, code="no-console-socket", subject=path) from None
    if close:
        os.close(fd)
