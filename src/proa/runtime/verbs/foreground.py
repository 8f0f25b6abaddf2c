"""Stay with a process of a container: pass signals on to it, be its terminal, end as it ended."""

from __future__ import annotations

import fcntl
import os
import select
import termios
import tty

from proa.linux.tty import set_window_size, window_size
from proa.runtime.launching import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # the package of that name costs an enumeration

__all__ = ["follow", "hold_signals"]

_PASSED_ON = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGALRM,
)


def hold_signals() -> None:
    """Before the process is started: signals to be passed on wait until `follow` can do so."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)


def follow(process: Process) -> int:
    """Wait until the process, our child, has ended; returns its exit status, 128 + the signal that killed it."""

    def pass_on(number: int, _frame: object) -> None:
        try:
            signal.pidfd_send_signal(process.pidfd, number)
        except ProcessLookupError:
            pass

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    if process.console_fd is not None:
        _relay(process.console_fd, process.pidfd)
    status = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
    os.close(process.pidfd)
    return status if status >= 0 else 128 - status


def _relay(master: int, pidfd: int) -> None:
    """Copy between our standard streams and a terminal until its process has ended and all it wrote is out."""
    ours = os.isatty(0)
    before = termios.tcgetattr(0) if ours else None
    resized = [True]
    wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGWINCH, lambda _number, _frame: resized.__setitem__(0, True))
    signal.set_wakeup_fd(wake_writer)
    try:
        if ours:
            tty.setraw(0)
        _copy(master, pidfd, wake_reader, resized, sized=ours)
    finally:
        signal.set_wakeup_fd(-1)
        if before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
        for fd in (master, wake_reader, wake_writer):
            os.close(fd)


def _copy(master: int, pidfd: int, wake: int, resized: list[bool], *, sized: bool) -> None:
    fcntl.fcntl(master, fcntl.F_SETFL, fcntl.fcntl(master, fcntl.F_GETFL) | os.O_NONBLOCK)
    events = select.poll()
    events.register(master, select.POLLIN)
    events.register(0, select.POLLIN)
    events.register(pidfd, select.POLLIN)
    events.register(wake, select.POLLIN)
    ended = False
    while True:
        if resized[0]:
            resized[0] = False
            if sized:
                set_window_size(master, *window_size(0))
        ready = dict(events.poll(0 if ended else None))
        if wake in ready:
            os.read(wake, 4096)
        if master in ready:
            try:
                data = os.read(master, 1 << 16)
            except BlockingIOError:
                data = b""
            except OSError:
                return  # EIO: nobody has it open any more
            while data:
                data = data[os.write(1, data) :]
            continue
        if ended:
            return
        if 0 in ready:
            data = os.read(0, 4096)
            if not data:
                events.unregister(0)
                data = b"\x04"
            _type(master, data)
        ended = pidfd in ready


def _type(master: int, data: bytes) -> None:
    """Write all of `data`; what a process does not read for ten seconds is lost, as on any full terminal."""
    room = select.poll()
    room.register(master, select.POLLOUT)
    while data and room.poll(10_000):
        try:
            data = data[os.write(master, data) :]
        except BlockingIOError:
            continue
        except OSError:
            return
