"""An engine that kills itself at its n-th step, for tests: dying_engine.py N ROOT RUN.

Steps are what changes the disk (`fault_steps`) and every message to a monitor or the nursery, counted before and after
it goes out: between any two the outside has seen something and the engine has not noted it yet, or the other way
round. With N = 0 nothing happens, and the count is written to RUN/steps when the engine ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fault_steps import STEPS

from proa.monitor.client import Channel
from proa.monitor.nursery import Nursery


class Steps:
    """Counts once `armed` exists: what the start of the engine itself does is not meant."""

    def __init__(self, at: int, run: str) -> None:
        self._at = at
        self._armed = f"{run}/armed"
        self._report = f"{run}/steps"
        self._lock = threading.Lock()
        self._count = 0

    def step(self) -> None:
        """One more; the last one, maybe."""
        try:
            os.stat(self._armed)
        except FileNotFoundError:
            return
        with self._lock:
            self._count += 1
            if self._count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            fd = os.open(self._report, os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(fd, b"%d" % self._count)
            os.close(fd)

    def around(self, call: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
        """The call, with a step before it and maybe one after."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.step()
            result = call(*args, **kwargs)
            if after:
                self.step()
            return result

        return counted


def main() -> None:
    at, root, run = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    steps = Steps(at, run)
    for name in STEPS:
        setattr(os, name, steps.around(getattr(os, name)))
    for owner, name in ((Channel, "send"), (Channel, "request"), (Nursery, "_fork"), (Nursery, "start_container")):
        setattr(owner, name, steps.around(getattr(owner, name), after=True))
    from proa.api.program import run as serve

    raise SystemExit(serve(["--root", root, "--run", run]))


if __name__ == "__main__":
    main()
