"""Docker's progress streams: on a screen a line for each layer, redrawn in place; in a pipe a line for each change.

{"status": "Downloading", "id": "abc", "progressDetail": {"current": 1, "total": 2}}
"""

from __future__ import annotations

import time

from proa.cli.humanise import decimal_size
from proa.cli.session import put
from proa.cli.terminal import is_terminal, printable, size
from proa.client.failures import stream_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = ["show_progress"]

_BAR = 50
_REDRAW_S = 0.05


def show_progress(records: Iterable[dict[str, Any]], fd: int, *, quiet: bool = False) -> dict[str, Any]:
    """Show records until they end; returns the last `aux` document.

    Raises the failure one of them reports.
    """
    aux: dict[str, Any] = {}
    screen = None if quiet else (_Screen(fd) if is_terminal(fd) else _Lines(fd))
    for record in records:
        error = stream_failure(record)
        if error is not None:
            raise error
        if isinstance(record.get("aux"), dict):
            aux = record["aux"]
        if screen is not None:
            screen.show(record)
    if screen is not None:
        screen.finish()
    return aux


def _plain(record: dict[str, Any]) -> str:
    text = str(record.get("stream") or record.get("status") or "")
    return f"{record['id']}: {text}" if record.get("id") else text


class _Lines:
    """For pipes and files: whatever is not a step of a transfer, once."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._last: dict[str, str] = {}

    def show(self, record: dict[str, Any]) -> None:
        detail = record.get("progressDetail") or {}
        text = _plain(record)
        if detail.get("current") or not text.strip():
            return
        identity = str(record.get("id") or "")
        if identity:
            if self._last.get(identity) == text:
                return
            self._last[identity] = text
        put(self._fd, (text if record.get("stream") else text + "\n").encode("utf-8", "surrogateescape"))

    def finish(self) -> None:
        """Nothing is left to write."""


class _Screen:
    """For terminals: a row for each id, redrawn at most twenty times a second while only its numbers change."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rows: dict[str, int] = {}
        self._count = 0
        self._state: dict[str, tuple[str, float]] = {}
        self._pending: dict[str, str] = {}

    def show(self, record: dict[str, Any]) -> None:
        identity = str(record.get("id") or "")
        text = _plain(record)
        if not identity or record.get("stream"):
            self._flush()
            if text.strip():
                self._rows.clear()  # what follows is below this line
                self._count = 0
                put(self._fd, (printable(text.rstrip("\n"), self._fd) + "\n").encode("utf-8", "surrogateescape"))
            return
        detail = record.get("progressDetail") or {}
        status = str(record.get("status") or "")
        line = f"{text} {_bar(detail)}".rstrip() if detail.get("current") else text
        before, drawn = self._state.get(identity, ("", 0.0))
        now = time.monotonic()
        if before == status and now - drawn < _REDRAW_S:
            self._pending[identity] = line
            return
        self._pending.pop(identity, None)
        self._state[identity] = (status, now)
        self._draw(identity, line)

    def finish(self) -> None:
        """Draw what was held back."""
        self._flush()

    def _flush(self) -> None:
        for identity, line in self._pending.items():
            self._draw(identity, line)
        self._pending.clear()

    def _draw(self, identity: str, line: str) -> None:
        line = printable(line, self._fd)[: max((size(self._fd)[1] or 80) - 1, 20)]
        if identity not in self._rows:
            self._rows[identity] = self._count
            self._count += 1
            put(self._fd, f"{line}\n".encode())
            return
        up = self._count - self._rows[identity]
        put(self._fd, f"\x1b[{up}A\r\x1b[2K{line}\x1b[{up}B\r".encode())


def _bar(detail: dict[str, Any]) -> str:
    current, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
    if total <= 0 or current > total:
        return decimal_size(current, 4)
    done = _BAR * current // total
    bar = "=" * max(done - 1, 0) + (">" if done < _BAR else "=") + " " * (_BAR - max(done, 1))
    return f"[{bar}] {decimal_size(current, 4):>7}/{decimal_size(total, 4)}"
