"""The host's own name servers, as its resolver file says now: it changes with the network the host is in."""

from __future__ import annotations

import os
import time
from ipaddress import ip_address

__all__ = ["HostServers"]

FILE = "/etc/resolv.conf"
LARGEST_BYTES = 64 * 1024
LOOK_EVERY_S = 2.0


class HostServers:
    """The servers, read again when the file has changed. Loopback ones are fine: queries leave from the host."""

    def __init__(self, file: str = FILE) -> None:
        self._file = file
        self._stamp: tuple[int, int] = (-1, -1)
        self._looked = -LOOK_EVERY_S
        self._found: list[str] = []

    def servers(self) -> list[str]:
        """At most three, as resolver(5) has it."""
        now = time.monotonic()
        if now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            self._look()
        return self._found

    def _look(self) -> None:
        try:
            state = os.stat(self._file)
            stamp = (state.st_mtime_ns, state.st_ino)
            if stamp == self._stamp:
                return
            with open(self._file, "rb") as file:
                self._found = parse(file.read(LARGEST_BYTES))
            self._stamp = stamp
        except OSError:
            self._found, self._stamp = [], (-1, -1)


def parse(content: bytes) -> list[str]:
    """The addresses of `nameserver` lines; those that are none are left out."""
    found = []
    for line in content.decode("ascii", errors="replace").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                if "%" not in words[1]:
                    found.append(str(ip_address(words[1])))
            except ValueError:
                continue
    return found[:3]
