"""The unpack zygote: a warm, single-threaded process that forks one worker per layer or visit.

The engine has threads and may not fork; a fresh interpreter per layer would cost tens of milliseconds. So the engine
executes this program once. It imports everything a worker needs, freezes it, and then forks for every socket it is
sent. It ends when the engine closes the control socket, and its workers die with it.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import sys

from proa.linux.process import PR_SET_DUMPABLE, prctl, set_name
from proa.linux.sockets import receive_fds
from proa.storage.layers import worker
from proa.storage.layers.decompress import decompress
from proa.storage.layers.workers import VISIT
from proa.storage.roots import visitor

__all__ = ["main"]


def main(control_fd: int) -> None:
    """Serve the control socket until its other end is closed."""
    sys.dont_write_bytecode = True
    os.umask(0o077)
    os.chdir("/")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
            score.write(b"0")  # the engine's is lower: a worker that takes all memory is to go first
    except OSError:
        pass  # another user's, in a user namespace: then it has what its starter has
    prctl(PR_SET_DUMPABLE, 0)
    set_name("proa-unpack")
    # The terminal's signals are for the engine; workers are reaped by the kernel.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    _warm_up()
    control = socket.socket(fileno=control_fd)
    pid = os.getpid()
    gc.collect()
    gc.freeze()
    while True:
        message, fds = receive_fds(control, 1, 1)
        if not message:
            return
        for fd in fds:
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                control.close()
                run = visitor.run if message == VISIT else worker.run
                run(socket.socket(fileno=fd), pid)
            os.close(fd)


def _warm_up() -> None:
    """Use what a worker uses once, so that nothing is imported or initialised for the first time in a chroot."""
    from zlib import compressobj

    encoder = compressobj(wbits=31)
    packed = [encoder.compress(b"proa") + encoder.flush()]
    assert b"".join(decompress("gzip", lambda _size: packed.pop() if packed else b"")) == b"proa"
    empty_frame = [bytes.fromhex("28b52ffd2000010000")]
    assert b"".join(decompress("zstd", lambda _size: empty_frame.pop() if empty_frame else b"")) == b""
    json.loads(json.dumps({"text": "\u2026", "number": 1, "none": None}))
    os.fsencode(os.fsdecode(b"\xff"))
    b"\xff".decode("utf-8", "backslashreplace")
