"""Pass the listener of a seccomp filter with user notification to who handles it (runtime-spec config-linux.md)."""

from __future__ import annotations

import os

from proa.errors import Unavailable
from proa.linux.process import pidfd_getfd
from proa.linux.sockets import connect_and_send
from proa.runtime.verbs import documents, records
from proa.runtime.verbs.records import Record

__all__ = ["pass_listener"]


def pass_listener(line: bytes, pid: int, record: Record) -> bytes:
    """Fetch the listener that process `pid` told of on its channel (`S` and a number), and send it on.

    The answer on the channel is empty. Raises Unavailable when nobody takes it.
    """
    path, metadata = record.notify
    pidfd = os.pidfd_open(pid)
    try:
        listener = pidfd_getfd(pidfd, int(line[1:]))
    finally:
        os.close(pidfd)
    state = {
        "ociVersion": record.document["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": metadata,
        "state": records.state_of(record, "creating" if pid == record.pid else "running"),
    }
    try:
        connect_and_send(path, documents.encode(state).encode(), [listener])
    except OSError as error:
        text = f"nothing takes the seccomp listener at {path}: {error.strerror}"
        raise Unavailable(text, code="no-seccomp-agent", subject=path) from None
    finally:
        os.close(listener)
    return b""
