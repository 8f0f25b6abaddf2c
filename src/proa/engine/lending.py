"""Launchers that the nursery lends for execs, one of which is kept in hand."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from proa.engine.agenda import Agenda
from proa.errors import ProaError
from proa.monitor.borrowed import BorrowedLauncher

__all__ = ["Lending"]

log = logging.getLogger(__name__)

# By then the nursery has another one ready (`zygote.REFILL_MS`), and the command that took the last has ended.
REFILL_S = 0.06


class Lending:
    """The launcher in hand, once there was an exec: to ask for one took 0.3 ms of each, and has to wait for locks."""

    def __init__(self, lend: Callable[[], BorrowedLauncher], agenda: Agenda) -> None:
        self._lend = lend
        self._agenda = agenda
        self._lock = threading.Lock()
        self._in_hand: BorrowedLauncher | None = None
        self._filling = False
        self._closed = False

    @property
    def has_one(self) -> bool:
        """Whether `take` waits for nothing."""
        return self._in_hand is not None

    def take(self) -> BorrowedLauncher | None:
        """The one in hand or else from the nursery, None when there is none to be had; the caller closes it."""
        with self._lock:
            taken, self._in_hand = self._in_hand, None
        if taken is None:
            try:
                taken = self._lend()
            except (OSError, ProaError):
                pass
        self._refill_later()
        return taken

    def close(self) -> None:
        """Let go of it: it ends."""
        with self._lock:
            self._closed = True
            taken, self._in_hand = self._in_hand, None
        if taken is not None:
            taken.close()

    def _refill_later(self) -> None:
        with self._lock:
            if self._filling or self._closed:
                return
            self._filling = True
        self._agenda.later(REFILL_S, self._refill)

    def _refill(self) -> None:
        try:
            launcher = self._lend()
        except (OSError, ProaError) as error:
            log.debug("no launcher to keep in hand: %s", error)
            launcher = None
        with self._lock:
            self._filling = False
            if not self._closed and self._in_hand is None:
                launcher, self._in_hand = None, launcher
        if launcher is not None:
            launcher.close()
