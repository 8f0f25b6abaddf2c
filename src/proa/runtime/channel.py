"""The sync channel from a starting process to the monitor: typed lines, then end of file when execve succeeded.

    monitor                         child
    clone3  ----------------------->  steps…
    receive <--- W warning ---------  (any number)
    receive <--- H -----------------  the creator's hooks are to run; it answers G + state (`AwaitHooks`)
    receive <--- S + fd number -----  a seccomp listener to be fetched (pidfd_getfd); it answers G
    receive <--- T + pty master ----  when there is a terminal
    receive <--- R ready -----------  just before execve
    receive <--- E error -----------  a step, or execve, failed: the child ends
    receive <--- end of file -------  the fd was close-on-exec: the user process runs

The child encodes by hand (fields joined by NUL) because it must not need any code that is not loaded yet.
"""

from __future__ import annotations

import _socket
import errno
import os

from proa.errors import KINDS, Internal, ProaError
from proa.linux.sockets import receive_fds, send_fds
from proa.linux.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LIMIT = 16 << 10
_EXHAUSTED = (errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EDQUOT, errno.EAGAIN)
_UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENODEV)
_INVALID = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Outcome(NamedTuple):
    """What the child told: whether it got to execve, what it could not do but went on, its pty master, its error."""

    ready: bool
    warnings: tuple[str, ...]
    terminal_fd: int
    error: ProaError | None


class Channel:
    """The child's end."""

    __slots__ = ("fd", "socket")

    def __init__(self, sock: _socket.socket) -> None:
        self.socket = sock
        self.fd = sock.fileno()

    def warn(self, text: str) -> None:
        """Tell of something that could not be had and was not essential."""
        os.write(self.fd, b"W" + os.fsencode(text)[:_LIMIT])

    def ready(self) -> None:
        """Say that execve is next."""
        os.write(self.fd, b"R")

    def send_terminal(self, master_fd: int) -> None:
        """Hand over the pty's master."""
        send_fds(self.socket, b"T", [master_fd])

    def fail(self, step: str, subject: str, error: BaseException) -> None:
        """Tell of the error that ends this process. Never raises."""
        if isinstance(error, ProaError):
            fields = (error.kind, error.code, step, "0", error.subject or subject, error.message, error.hint)
        elif isinstance(error, OSError):
            text = f"{error.strerror}: {_text(error.filename)}" if error.filename is not None else str(error.strerror)
            fields = (_kind(error.errno or 0), "", step, str(error.errno or 0), subject, text, "")
        else:
            fields = (Internal.kind, "", step, "0", subject, f"{type(error).__name__}: {error}", "")
        try:
            os.write(self.fd, b"E" + b"\0".join(os.fsencode(field.replace("\0", "?")) for field in fields)[:_LIMIT])
        except OSError:
            pass  # the monitor is gone: nobody to tell


def _text(name: object) -> str:
    return os.fsdecode(name) if isinstance(name, bytes) else str(name)


def _kind(number: int) -> str:
    if number in _EXHAUSTED:
        return "exhausted"
    if number in _UNSUPPORTED:
        return "unsupported"
    if number in _INVALID:
        return "invalid"
    if number in _DENIED:
        return "denied"
    return "internal"


def receive(
    sock: _socket.socket,
    keep_waiting: Callable[[], bool] | None = None,
    answer: Callable[[bytes], bytes] | None = None,
) -> Outcome:
    """Read the child's lines until end of file. Takes as long as the child does, unless `keep_waiting` (asked on each
    time-out of the socket) says otherwise.

    answer: what to send for a line of kind H or S, given whole; what it raises, this raises.
    """
    ready = False
    warnings: list[str] = []
    terminal_fd = -1
    error: ProaError | None = None
    while True:
        try:
            data, fds = receive_fds(sock, _LIMIT + 1, 1)
        except TimeoutError:
            if keep_waiting is not None and not keep_waiting():
                break
            continue
        except ConnectionResetError:
            continue  # it ended without reading all it was sent: told once, before what it said itself
        if not data:
            break
        kind, body = data[:1], data[1:]
        if kind == b"R":
            ready = True
        elif kind == b"W":
            warnings.append(os.fsdecode(body))
        elif kind == b"T" and fds and terminal_fd < 0:
            terminal_fd = fds.pop()
        elif kind == b"E":
            error = decode_failure(body)
        elif kind in (b"H", b"S"):
            if answer is not None:
                sock.send(b"G" + answer(data))
            else:
                sock.shutdown(_socket.SHUT_WR)  # nobody here can do that, and it must not wait
        for fd in fds:
            os.close(fd)
    return Outcome(ready, tuple(warnings), terminal_fd, error)


def decode_failure(body: bytes) -> ProaError:
    """The error that `Channel.fail` wrote after its first byte."""
    values = [field.decode(errors="backslashreplace") for field in body.split(b"\0")]
    kind, code, step, number, subject, message, hint = (values + [""] * 7)[:7]
    text = message if code else f"{message} (while {step})"
    return KINDS.get(kind, Internal)(
        text, code=code or "container-setup-failed", subject=subject, hint=hint, step=step, errno=int(number or 0)
    )
