"""Processes beside the engine that outlive it: started by it with a listening socket, found again by that socket."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from proa.monitor.sealed import import_locations

__all__ = ["connect_companion", "start_companion", "when_gone"]

PATIENCE_S = 20.0


def connect_companion(path: Path) -> socket.socket | None:
    """A channel of messages to the one that listens there; None when none does."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        channel.connect(str(path))
    except OSError:
        channel.close()
        return None
    # Never hang on a process that was stopped.
    channel.settimeout(PATIENCE_S)
    return channel


def start_companion(program: str, *packages: ModuleType, title: str, path: Path, log: Path) -> None:
    """Run `MODULE.main(listener_fd)` in a session of its own, listening at `path`; its stderr goes to `log`.

    program: the module; packages: what it imports from elsewhere than the standard library.
    """
    boot = f"import sys;sys.path+=sys.argv[2:];from {program} import main;main(int(sys.argv[1]))"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as listener:
        listener.bind(str(path))
        os.chmod(path, 0o600)
        listener.listen(8)
        log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-X", "utf8", "-c", boot, str(listener.fileno())),
                    *import_locations(*packages),
                    *(title, str(path.parent)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log_fd,
                env={},
                cwd="/",
                pass_fds=(listener.fileno(),),
                start_new_session=True,
            )
        finally:
            os.close(log_fd)
    threading.Thread(target=process.wait, name=title.replace(" ", "-"), daemon=True).start()


def when_gone(channel: socket.socket, name: str, call: Callable[[], None]) -> None:
    """Call, in a thread of that name, once the companion at the other end has ended, or this end has been shut down."""
    fd = os.dup(channel.fileno())

    def wait() -> None:
        gone = select.poll()
        gone.register(fd, select.POLLHUP)
        gone.poll()
        os.close(fd)
        call()

    threading.Thread(target=wait, name=name, daemon=True).start()
