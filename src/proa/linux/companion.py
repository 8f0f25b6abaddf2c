"""What every process does first that outlives the engine or stands beside it."""

from __future__ import annotations

import os
import signal

from proa.linux.process import PR_SET_DUMPABLE, prctl

__all__ = ["stand_alone"]


def stand_alone() -> None:
    """Keep no directory busy, be closed to other processes of the user, and heed no signal of a terminal or session."""
    os.chdir("/")
    prctl(PR_SET_DUMPABLE, 0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
