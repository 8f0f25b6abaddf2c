"""Notice when someone takes our rules away (`nft flush ruleset`, a firewall that reloads) and have them put back."""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable

from proa.network.netlink import NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES, attributes

__all__ = ["RuleWatch"]

_ADD_MEMBERSHIP = 1
_SOL_NETLINK = 270
_GROUP_NFTABLES = 7
_HEADER = struct.Struct("=IHHII")
# DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM: all carry the table's name as attribute 1
_DELETIONS = {NFNL_SUBSYS_NFTABLES << 8 | message for message in (2, 5, 8, 11, 14)}
# A reload is many messages and may end with more deletions: look when it has been quiet for this long.
_QUIET_S = 0.2


class RuleWatch:
    """A thread that calls `repair` after somebody else deleted from `table`; idle otherwise.

    author: the netlink address whose changes are ours.
    """

    def __init__(self, table: str, author: int, repair: Callable[[], None]) -> None:
        self._table = table.encode() + b"\0"
        self._author = author
        self._repair = repair
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.bind((0, 0))  # a socket without an address hears nothing
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(self._socket, selectors.EVENT_READ)
        self._waiting.register(self._stop_read, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="proa-rules", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end; it may be waiting for a lock of the caller's, so it is not waited for."""
        os.close(self._stop_write)

    def _run(self) -> None:
        torn = False
        try:
            while True:
                ready = self._waiting.select(_QUIET_S if torn else None)
                if any(key.fd == self._stop_read for key, _ in ready):
                    return
                if ready:
                    torn = self._receive() or torn
                elif torn:
                    torn = False
                    self._repair()
        finally:
            self._waiting.close()
            self._socket.close()
            os.close(self._stop_read)

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(1 << 16)
        except OSError:  # ENOBUFS: more happened than the queue holds, ours may be among it
            return True
        offset = 0
        while offset + 20 <= len(data):
            size, kind, _, _, author = _HEADER.unpack_from(data, offset)
            if size < 20:
                break
            body = data[offset + 20 : offset + size]
            if kind in _DELETIONS and author != self._author and attributes(body).get(1) == self._table:
                return True
            offset += (size + 3) & ~3
        return False
