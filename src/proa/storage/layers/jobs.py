"""The worker's side of a job: say hello, take the order, answer with records, leave the process.

Nothing is raised out of it and nothing printed: a traceback would read files of the image or container it works in.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from proa.errors import Exhausted, Internal, ProaError
from proa.linux.process import PR_SET_PDEATHSIG, prctl
from proa.linux.sockets import receive_fds, send_fds

__all__ = ["MESSAGE_LIMIT", "serve", "take", "unknown"]

MESSAGE_LIMIT = 64 << 10


def serve(
    sock: socket.socket,
    zygote_pid: int,
    results: Callable[[socket.socket], Iterator[dict[str, Any]]],
    failed: Callable[[BaseException], ProaError],
) -> NoReturn:
    """Send each of `results` as it comes, or the error that ends them, and leave the process.

    failed: what an exception that is no ProaError means to whoever gave the job
    """
    # A worker makes no cycles worth collecting in its short life.
    gc.disable()
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != zygote_pid:
            os._exit(1)
        try:
            for result in results(sock):
                sock.send(json.dumps({"result": result}).encode()[:MESSAGE_LIMIT])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            known = error if isinstance(error, ProaError) else failed(error)
            sock.send(json.dumps({"error": known.to_record()}).encode()[:MESSAGE_LIMIT])
    except BaseException:  # noqa: BLE001 - see the module
        os._exit(1)
    os._exit(0)


def take(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Say which process this is; returns the order and the fds that came with it, of which there are two or more.

    Raises Internal when there is none.
    """
    pidfd = os.pidfd_open(os.getpid())
    send_fds(sock, json.dumps({"pid": os.getpid()}).encode(), [pidfd])
    os.close(pidfd)
    message, fds = receive_fds(sock, MESSAGE_LIMIT)
    if len(fds) < 2:
        raise Internal("the worker got no job", code="unpack-worker")
    order: dict[str, Any] = json.loads(message)
    return order, fds


def unknown(error: BaseException, what: str, *, memory: str, other: str) -> ProaError:
    """An exception that nobody expected: its kind, and a line of what it says; with one of two codes."""
    if isinstance(error, MemoryError):
        return Exhausted(f"{what} ran out of memory", code=memory)
    return Internal(f"{what} failed: {type(error).__name__}: {error}"[:1000], code=other)
