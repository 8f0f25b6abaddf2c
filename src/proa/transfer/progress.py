"""What a transfer tells while it runs, in the words Docker clients print and match on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from proa.oci import Digest, digest_hex

INTERVAL_S = 0.1
_BAR = 50
_UNITS = ("B", "kB", "MB", "GB", "TB")


class ProgressEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line of progress.

    status:  a phase such as `Downloading`, or a closing line such as `Digest: sha256:…`
    id:      the short digest of the layer it is about, or the tag in the first line
    current: bytes done; total: bytes in all, 0 when unknown
    message: free text for the log of a load (the `stream` member of Docker's JSON), with its newline
    aux:     machine-readable result, at the end of a push
    """

    status: str = ""
    id: str = ""
    current: int = 0
    total: int = 0
    message: str = ""
    aux: dict[str, Any] | None = None

    def to_wire(self) -> dict[str, Any]:
        """The event as one object of Docker's JSON progress stream."""
        if self.aux is not None:
            return {"progressDetail": {}, "aux": self.aux}
        if self.message:
            return {"stream": self.message}
        out: dict[str, Any] = {"status": self.status}
        if self.current or self.total:
            out["progressDetail"] = {"current": self.current, **({"total": self.total} if self.total else {})}
            out["progress"] = progress_bar(self.current, self.total)
        elif self.status in _PHASES:
            out["progressDetail"] = {}
        if self.id:
            out["id"] = self.id
        return out


_PHASES = frozenset(
    {
        "Pulling fs layer",
        "Waiting",
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
        "Already exists",
        "Preparing",
        "Pushed",
        "Layer already exists",
    }
)

Progress = Callable[[ProgressEvent], None]


def silent(event: ProgressEvent) -> None:
    """Progress for callers that want none."""


def tell_warnings(warnings: Iterable[str], progress: Progress) -> None:
    """What a registry has to say to its users, among the closing lines."""
    for text in warnings:
        progress(ProgressEvent(status=f"Warning: {text}"))


def one_at_a_time(progress: Progress) -> Progress:
    """The same progress for several threads: calls wait for each other."""
    lock = threading.Lock()

    def locked(event: ProgressEvent) -> None:
        with lock:
            progress(event)

    return locked


def short_id(digest: Digest | str) -> str:
    """The 12 hex digits by which progress names a layer."""
    return digest_hex(Digest(digest))[:12]


def progress_bar(current: int, total: int) -> str:
    """`[=====>     ]  1.05MB/2.1MB`, as Docker's older clients print it."""
    if total <= 0:
        return f"{_size(current):>8}"
    done = min(_BAR, current * _BAR // total)
    bar = "=" * done + (">" if done < _BAR else "") + " " * (_BAR - done - 1)
    return f"[{bar}]  {_size(current)}/{_size(total)}"


def _size(count: float) -> str:
    """Four significant digits with a decimal unit, Go-units style."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.4g}{_UNITS[unit]}"


class Meter:
    """Count bytes of one blob and report at most every INTERVAL_S, so that progress costs nothing."""

    def __init__(self, progress: Progress, status: str, id_: str, total: int) -> None:
        self._progress = progress
        self._status = status
        self._id = id_
        self.total = total
        self.current = 0
        self._next = 0.0

    def at(self, current: int) -> None:
        """Set how far it is."""
        self.current = current
        now = time.monotonic()
        if now >= self._next:
            self._next = now + INTERVAL_S
            self._progress(ProgressEvent(status=self._status, id=self._id, current=current, total=self.total))

    def add(self, count: int) -> None:
        """Move on by `count` bytes."""
        self.at(self.current + count)
