"""The terminal: is it one, how large is it, raw mode, and text that cannot command it."""

from __future__ import annotations

import sys
from posix import isatty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

__all__ = ["RawTerminal", "emit", "is_terminal", "printable", "size"]

# C0 and C1 control characters but tab and newline, and the characters that reorder text around them.
_HARMFUL = (
    *range(9),
    *range(11, 32),
    *range(127, 160),
    0x061C,
    *range(0x200E, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
)


def is_terminal(fd: int) -> bool:
    """Whether a descriptor is a terminal; a closed one is not."""
    try:
        return isatty(fd)
    except OSError:
        return False


def printable(text: str, fd: int = 1) -> str:
    """The text without characters that could command a terminal, if `fd` is one."""
    if text.isprintable() or not is_terminal(fd):
        return text
    return text.translate(dict.fromkeys(_HARMFUL))


def emit(text: str) -> None:
    """Write text to stdout: UTF-8, other names byte for byte; on a terminal without control characters."""
    sys.stdout.flush()
    sys.stdout.buffer.write(printable(text, 1).encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()


def size(fd: int) -> tuple[int, int]:
    """Rows and columns, (0, 0) where there is no terminal."""
    from posix import get_terminal_size

    try:
        columns, rows = get_terminal_size(fd)
    except OSError:
        return 0, 0
    return rows, columns


class RawTerminal:
    """A terminal whose keys go through unread; a context manager that puts the old settings back."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        import termios

        try:
            self._before = termios.tcgetattr(self._fd)
        except termios.error:
            return self
        mode = termios.tcgetattr(self._fd)
        mode[0] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP)
        mode[0] &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
        mode[1] &= ~termios.OPOST
        mode[2] = (mode[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSANOW, mode)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)
