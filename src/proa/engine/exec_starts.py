"""How an exec gets to run: by a launcher that the nursery lends, or else by the container's monitor."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from proa.engine.catalog import Entry
from proa.engine.lending import Lending
from proa.engine.runs import Run
from proa.engine.types import Exec
from proa.errors import ProaError
from proa.monitor.borrowed import BorrowedLauncher
from proa.monitor.protocol import ExecRequest, ExecTarget

if TYPE_CHECKING:
    from proa.engine.engine import Engine

__all__ = ["ExecStarts", "Starting"]

# A launcher has an exec for 30 ms (`launcher.ATTEND_MS`) and gives it away; more is a monitor that was stopped.
SETTLE_S = 5.0


class Starting:
    """An exec on its way, with the order for it: sent to `launcher`, or, without one, still to be sent to the monitor.

    connection: the client's socket, which is ours to close.
    """

    __slots__ = ("connection", "entry", "exec", "launcher", "order", "run")

    def __init__(self, exec_: Exec, entry: Entry, run: Run, order: ExecRequest, connection: int | None) -> None:
        self.exec = exec_
        self.entry = entry
        self.run = run
        self.order = order
        self.connection = connection
        self.launcher: BorrowedLauncher | None = None

    @property
    def client_fd(self) -> int | None:
        """The client's socket, when it is to be attached."""
        return None if self.order.attach is None else self.connection


class ExecStarts:
    """Starts execs and hears from launchers how they went."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lending = Lending(lambda: engine.nursery.lend(), engine.agenda)
        # Execs that a launcher has, for a moment: whether that moment is over.
        self._moments: dict[str, threading.Event] = {}

    def close(self) -> None:
        """Let go of what is kept for the next exec."""
        self._lending.close()

    def ready(self, run: Run) -> bool:
        """Whether `send` waits for nothing."""
        return run.exec_target is not None and self._lending.has_one

    def send(self, starting: Starting) -> None:
        """Order it of a launcher, where one can do it; `conclude` is to follow."""
        target = self._target(starting.run)
        launcher = self._lending.take() if target is not None else None
        if target is None or launcher is None:
            return
        self._moments[starting.exec.id] = threading.Event()
        if launcher.order(starting.order, target, starting.client_fd):
            starting.launcher = launcher
        else:
            self._over(starting.exec)
            launcher.close()

    @staticmethod
    def _target(run: Run) -> ExecTarget | None:
        """What a launcher has to know of the container, asked for once; None when no launcher can do it.

        Or when the monitor does not say, be it of an earlier version: it is asked to start the exec then.
        """
        if run.exec_target is None:
            try:
                run.exec_target = run.connection.exec_target()
            except ProaError:
                return None
        return run.exec_target

    def conclude(self, starting: Starting, *, wait: bool) -> bool:
        """Whether it runs now; False, when nothing is waited for, while that is not known.

        A launcher that was killed is done without. Raises what the start met.
        """
        exec_, launcher = starting.exec, starting.launcher
        if launcher is not None:
            try:
                started = launcher.outcome(wait=wait)
            except BlockingIOError:
                return False
            except BaseException:
                launcher.close()
                self._over(exec_)
                raise
            if started is not None:
                exec_.pid = int(started["pid"])
                self._engine.watcher.add(launcher, partial(self._heard, starting.entry, exec_))
                return True
            launcher.close()
            self._over(exec_)
            starting.launcher = None
        if not wait:
            return False
        exec_.pid = int(starting.run.connection.exec(starting.order, starting.client_fd)["pid"])
        return True

    def settle(self, exec_: Exec) -> None:
        """Wait until no launcher has it any more, and so the monitor knows it if it runs."""
        if (moment := self._moments.get(exec_.id)) is not None:
            moment.wait(SETTLE_S)

    def _heard(self, entry: Entry, exec_: Exec, event: dict[str, Any] | None) -> None:
        """From a launcher, on the watcher's thread: the exec has ended, or is the monitor's now."""
        if event is not None and event["event"] == "exec-exit":
            self._engine.execs.ended(entry, event)
        self._over(exec_)

    def _over(self, exec_: Exec) -> None:
        if (moment := self._moments.pop(exec_.id, None)) is not None:
            moment.set()
