"""The audit log: one JSON line for every call that a scoped socket refused, in `audit.log` of the data root.

It is kept below twice LOG_BYTES: a full file becomes `audit.log.1`, in place of the one before.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import msgspec

from proa.api.sockets.doors import Door, Peer

LOG_BYTES = 1 << 20


class AuditLog:
    """Appends to the file; made when the first line comes."""

    def __init__(self, path: Path, limit: int = LOG_BYTES) -> None:
        self.path = path
        self._limit = limit
        self._lock = threading.Lock()

    def refused(self, door: Door, peer: Peer | None, method: str, path: str, why: str) -> None:
        """One call was refused. Raises OSError when the line cannot be written."""
        line = {
            "Time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "Socket": door.path,
            "Scope": str(door.scope),
            "Uid": peer.uid if peer else None,
            "Gid": peer.gid if peer else None,
            "Pid": peer.pid if peer else None,
            "Method": method[:32],
            "Path": path[:512],
            "Why": why[:512],
        }
        with self._lock:
            descriptor = os.open(
                self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            try:
                os.write(descriptor, msgspec.json.encode(line) + b"\n")
                full = os.fstat(descriptor).st_size >= self._limit
            finally:
                os.close(descriptor)
            if full:
                os.rename(self.path, f"{self.path}.1")
