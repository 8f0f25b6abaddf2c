"""Terminals: pty peers, window size, controlling terminal, raw mode (ioctl_tty(2))."""

from __future__ import annotations

import fcntl
import os
import struct

from proa.linux._libc import call, fail

TIOCSCTTY = 0x540E
TIOCGWINSZ = 0x5413
TIOCSWINSZ = 0x5414
TIOCSPTLCK = 0x40045431
TIOCGPTN = 0x80045430
TIOCGPTPEER = 0x5441

# struct winsize { u16 rows, columns, x pixels, y pixels; }
WINSIZE = struct.Struct("=HHHH")

_ioctl = call("ioctl")


def unlock_pty(master_fd: int) -> None:
    """Allow the peer of a pty to be opened."""
    fcntl.ioctl(master_fd, TIOCSPTLCK, struct.pack("=i", 0))


def pty_number(master_fd: int) -> int:
    """N of the peer's name /dev/pts/N."""
    return int(struct.unpack("=I", fcntl.ioctl(master_fd, TIOCGPTN, bytes(4)))[0])


def pty_peer(master_fd: int) -> int:
    """The peer of a pty, opened through the master so that no path is involved (Linux 4.13); close-on-exec."""
    fd = _ioctl(master_fd, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if fd < 0:
        fail("ioctl(TIOCGPTPEER)")
    return fd


def set_controlling_terminal(fd: int) -> None:
    """Make a terminal the controlling one of this session, which must have none."""
    fcntl.ioctl(fd, TIOCSCTTY, 0)


def window_size(fd: int) -> tuple[int, int]:
    """(rows, columns)."""
    rows, columns, _x, _y = WINSIZE.unpack(fcntl.ioctl(fd, TIOCGWINSZ, bytes(WINSIZE.size)))
    return rows, columns


def set_window_size(fd: int, rows: int, columns: int) -> None:
    """Set the size; the foreground process group gets SIGWINCH when it changed."""
    fcntl.ioctl(fd, TIOCSWINSZ, WINSIZE.pack(rows, columns, 0, 0))
