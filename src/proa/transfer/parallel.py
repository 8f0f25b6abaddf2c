"""Run the blobs of one transfer side by side; the first failure stops the rest, what is finished stays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from proa.errors import Cancelled

JOBS = 3
_POLL_S = 0.1

Task = Callable[[], None]


def run_parallel(
    tasks: Sequence[Task], *, width: int = JOBS, stopped: threading.Event | None, stop: Callable[[], None]
) -> None:
    """Run `tasks` in at most `width` threads, started in order, and wait for all of them.

    stopped: set by the caller of the transfer to cancel it
    stop:    called once to make running tasks end soon, after a failure or cancellation
    Raises the error of the first task in order that failed by itself; Cancelled when the caller cancelled.
    """
    if not tasks:
        return
    with ThreadPoolExecutor(max_workers=min(width, len(tasks)), thread_name_prefix="transfer") as pool:
        futures = [pool.submit(task) for task in tasks]
        pending: set[Future[None]] = set(futures)
        stopping = False
        try:
            while pending:
                done, pending = wait(
                    pending, _POLL_S if stopped else None, FIRST_EXCEPTION if not stopping else "ALL_COMPLETED"
                )
                failed = any(f.exception() is not None for f in done if not f.cancelled())
                if (failed or (stopped is not None and stopped.is_set())) and not stopping:
                    stopping = True
                    for future in pending:
                        future.cancel()
                    stop()
        except BaseException:
            for future in pending:
                future.cancel()
            stop()
            raise
    errors = [e for f in futures if not f.cancelled() and (e := f.exception()) is not None]
    if stopped is not None and stopped.is_set():
        raise Cancelled("the transfer was cancelled", code="cancelled")
    for error in (*(e for e in errors if not isinstance(e, Cancelled)), *errors):
        raise error
