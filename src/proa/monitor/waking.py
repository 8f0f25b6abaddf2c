"""Start an engine when a container that shall be restarted has ended and none watches: only an engine can do that."""

from __future__ import annotations

import os
import signal

from proa.linux import files
from proa.monitor.protocol import Wake

__all__ = ["wake"]


def wake(how: Wake) -> None:
    """Start the engine as a process of its own: no child of ours, in a session of its own, with our log."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open("/dev/null", os.O_RDONLY)
        log = os.open(how.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        for fd, number in ((null, 0), (log, 1), (log, 2)):
            os.dup2(fd, number)
        files.close_range(3)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.chdir("/")
        os.execve(how.command[0], how.command, dict(how.environment))  # noqa: S606
    finally:
        os._exit(127)
