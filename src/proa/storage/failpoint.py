"""Die at a named place, for crash tests: PROA_FAILPOINT=content.before-rename kills the process there with SIGKILL."""

from __future__ import annotations

import os
import signal

_ARMED = os.environ.get("PROA_FAILPOINT", "")


def failpoint(name: str) -> None:
    """Kill this process if `name` is the armed failpoint; else one comparison."""
    if name == _ARMED:
        os.kill(os.getpid(), signal.SIGKILL)
