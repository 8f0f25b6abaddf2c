"""Signals as plain numbers (signal(7)): what `signal` is made of, without its enumerations (4 ms to import)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signals
else:
    import _signal as signals

__all__ = [
    "SIGCHLD",
    "SIGKILL",
    "SIGSTOP",
    "SIG_DFL",
    "SIG_SETMASK",
    "getsignal",
    "pidfd_send_signal",
    "pthread_sigmask",
    "set_wakeup_fd",
    "signal",
    "valid_signals",
]

SIG_SETMASK = signals.SIG_SETMASK
SIG_DFL = signals.SIG_DFL
SIGCHLD = signals.SIGCHLD
SIGKILL = signals.SIGKILL
SIGSTOP = signals.SIGSTOP
getsignal = signals.getsignal
pidfd_send_signal = signals.pidfd_send_signal
pthread_sigmask = signals.pthread_sigmask
set_wakeup_fd = signals.set_wakeup_fd
signal = signals.signal
valid_signals = signals.valid_signals
