"""What every child of the zygote does around its one job: say who it is, get the job, answer, and be gone.

        engine                                     child (forked by the zygote)
          |  <-- {"pid"} + pidfd ---------------------  |
          |  --- job + descriptors ------------------>  |
          |  <-- {"result"}, or {"error"} ------------  |  any number of times
          |                                             |  _exit

Whatever happens, the child ends without a traceback, which would read files of the image that it is confined to.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from proa.errors import ProaError
from proa.linux.process import PR_SET_PDEATHSIG, prctl
from proa.linux.sockets import receive_fds, send_fds

__all__ = ["MESSAGE_LIMIT", "run_errand"]

MESSAGE_LIMIT = 64 << 10


def run_errand(
    sock: socket.socket,
    zygote_pid: int,
    work: Callable[[dict[str, Any], list[int]], Iterator[Any]],
    explain: Callable[[Exception], ProaError],
) -> NoReturn:
    """Do the one job that comes over `sock` and leave the process; it also ends when the zygote does.

    work:    given the job and its descriptors, yields results; what it raises is the last answer.
    explain: what an exception that is none of ours is told as.
    """
    # A child makes no cycles worth collecting in its short life.
    gc.disable()
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != zygote_pid:
            os._exit(1)
        for answer in _answers(sock, work, explain):
            sock.send(json.dumps(answer).encode()[:MESSAGE_LIMIT])
    except BaseException:  # noqa: BLE001 - see above
        os._exit(1)
    os._exit(0)


def _answers(
    sock: socket.socket,
    work: Callable[[dict[str, Any], list[int]], Iterator[Any]],
    explain: Callable[[Exception], ProaError],
) -> Iterator[dict[str, Any]]:
    try:
        pidfd = os.pidfd_open(os.getpid())
        send_fds(sock, json.dumps({"pid": os.getpid()}).encode(), [pidfd])
        os.close(pidfd)
        message, fds = receive_fds(sock, MESSAGE_LIMIT)
        # Without a message the engine is gone.
        for result in work(json.loads(message), fds) if message else ():
            yield {"result": result}
    except ProaError as error:
        yield {"error": error.to_record()}
    except Exception as error:  # noqa: BLE001 - told, and then the process ends
        yield {"error": explain(error).to_record()}
