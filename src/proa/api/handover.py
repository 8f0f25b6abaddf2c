"""Give a client's socket away: to the container's monitor, or to what waits for the container's start."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import termios
from typing import TYPE_CHECKING

from proa.api.pools import BUSY

if TYPE_CHECKING:
    from proa.api.messages import Hijack

__all__ = ["hand_over"]

#: docker-py reads the head through a buffer and what follows from the bare socket: output that arrives together with
#: the head is lost to it. So the head gets this long to be read alone; other clients read it within a millisecond.
_HEAD_PAUSES = (0.0, 0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04)


async def hand_over(hijack: Hijack, descriptor: int, early: bytes) -> None:
    """Park the socket or have it taken; whatever comes of it, the descriptor is not the caller's any more.

    Raises what taking it raises.
    """
    taken = False
    try:
        if hijack.park is None or not hijack.park(descriptor, early):
            if not hijack.at_once:
                await _until_read(descriptor)
            taken = True
            await hijack.take(descriptor, early)
    except BaseException as error:
        if not taken or getattr(error, "code", "") == BUSY:
            os.close(descriptor)  # the call that would own it was never made
        raise


async def _until_read(descriptor: int) -> None:
    for pause in _HEAD_PAUSES:
        queued = array.array("i", [0])
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, queued)  # SIOCOUTQ: bytes the other side has not read, unix(7)
        if not queued[0]:
            return
        await asyncio.sleep(pause)
