"""Threads for the engine's synchronous calls, so that slow ones never starve quick ones.

    quick    a list, an inspect: milliseconds each, and no container's lock is waited for
    change   a start, a stop, a removal: usually milliseconds, but may wait for a container to end
    slow     a pull, a load, an export: seconds to hours; more of them than threads are refused, not queued

What merely waits (events, wait, following a log) holds no thread at all.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from proa.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

QUICK_THREADS = 8
CHANGE_THREADS = 64
SLOW_THREADS = 48
#: Calls that may wait for a thread of their pool: seconds of work; more is an attack or a defect.
QUEUE = 1024
BUSY = "engine-busy"


class Pools:
    """The thread pools of an engine service; threads are made when first needed."""

    def __init__(self) -> None:
        self._quick = ThreadPoolExecutor(QUICK_THREADS, "quick")
        self._change = ThreadPoolExecutor(CHANGE_THREADS, "change")
        self._slow = ThreadPoolExecutor(SLOW_THREADS, "slow")
        self._waiting = 0
        self.slow_running = 0

    async def quick(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call of milliseconds. Raises Unavailable when far too many wait already."""
        return await self._queued(self._quick, functools.partial(call, *args, **kwargs))

    async def change(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that changes one container. Raises Unavailable when far too many wait already."""
        return await self._queued(self._change, functools.partial(call, *args, **kwargs))

    async def _queued(self, pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        if self._waiting >= QUEUE:
            raise Unavailable("the engine is busy: too many requests at once", code=BUSY)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, call)
        finally:
            self._waiting -= 1

    async def to_the_end(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`quick`, but a cancelled caller goes on only after the call: it may close what the call works on."""
        task = asyncio.ensure_future(self.quick(call, *args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait((task,))
            raise

    async def slow(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that may take long. Raises Unavailable when every slow thread is taken."""
        return await self.start_slow(call, *args, **kwargs)

    def start_slow(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """The same without waiting for it: the caller streams meanwhile."""
        if self.slow_running >= SLOW_THREADS:
            raise Unavailable(
                f"the engine is busy: {SLOW_THREADS} long operations run already",
                code=BUSY,
                hint="try again when one of them is done",
            )
        self.slow_running += 1
        future = asyncio.get_running_loop().run_in_executor(self._slow, functools.partial(call, *args, **kwargs))
        future.add_done_callback(self._slow_done)
        return future

    def _slow_done(self, _future: object) -> None:
        self.slow_running -= 1

    def close(self) -> None:
        """Let threads end when their calls do; what still waits is dropped."""
        for pool in (self._quick, self._change, self._slow):
            pool.shutdown(wait=False, cancel_futures=True)
