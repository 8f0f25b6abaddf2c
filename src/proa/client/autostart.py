"""Start the engine when nobody answers at its own place; one caller starts it, the others wait.

    client                      $PROA_RUN/start.lock       engine
    connect: refused
      flock(EX, no wait) ------> taken: just wait
      exec detached ------------------------------------> binds engine.sock, accepts
    connect until it answers <---------------------------

The engine's own lock on its data root decides what this lock cannot (another start at the same moment by other means).
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from proa.client.endpoint import Endpoint
from proa.errors import Unavailable

__all__ = ["engine_command", "start_engine"]

T = TypeVar("T")

PATIENCE_S = 60.0
# An engine that a command started ends itself when for so long nobody was connected and nothing ran.
IDLE_EXIT_S = 300
LOG_NAME = "engine.log"
_LOG_LINES = 12

# Runs in a fresh interpreter: detaches the engine from our session and terminal, and reports its pid. Forking in the
# client itself would be wrong in a threaded program, and a direct child would be this program's to reap.
_DETACH = """
import os, sys
os.setsid()
child = os.fork()
if child:
    os.write(1, str(child).encode())
    os._exit(0)
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
os.dup2(log, 1)
os.dup2(log, 2)
os.close(log)
os.chdir("/")
os.execv(sys.argv[2], sys.argv[2:])
"""


def engine_command(root: str, run: str) -> list[str]:
    """The command line of an engine for these directories."""
    package_parent = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    arguments = ["--root", root, "--run", run]
    if _site_knows(package_parent):
        return [sys.executable, "-I", "-m", "proa.api", *arguments]
    # A source tree or a user's own install: isolated mode would not look there.
    code = (
        f"import sys, runpy; sys.path.append({package_parent!r}); "
        "runpy.run_module('proa.api', run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-I", "-c", code, *arguments]


def start_engine(endpoint: Endpoint, connect: Callable[[], T]) -> T:
    """Start the engine of `endpoint.run` unless somebody else does, and connect to it.

    Raises Unavailable with the last lines of its log when it does not come up within a minute.
    """
    _make_directory(endpoint.run)
    deadline = time.monotonic() + PATIENCE_S
    lock = os.open(f"{endpoint.run}/start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    pidfd = -1
    log = f"{endpoint.run}/{LOG_NAME}"
    try:
        wait_s = 0.003
        while True:
            try:
                return connect()
            except (FileNotFoundError, ConnectionRefusedError):
                pass
            if pidfd < 0 and _lock(lock):
                try:
                    return connect()  # somebody's engine came up while we took the lock
                except (FileNotFoundError, ConnectionRefusedError):
                    pidfd = _spawn(endpoint, log)
            elif pidfd >= 0 and _ended(pidfd):
                try:
                    return connect()  # it lost against an engine started by other means
                except (FileNotFoundError, ConnectionRefusedError):
                    raise _failed(endpoint, log, "it ended at once") from None
            if time.monotonic() > deadline:
                raise _failed(endpoint, log, f"no answer within {PATIENCE_S:.0f} s")
            time.sleep(wait_s)
            wait_s = min(wait_s * 1.3, 0.05)
    finally:
        os.close(lock)
        if pidfd >= 0:
            os.close(pidfd)


def _spawn(endpoint: Endpoint, log: str) -> int:
    _make_directory(endpoint.root)
    command = [*engine_command(endpoint.root, endpoint.run), "--idle-exit", str(IDLE_EXIT_S)]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _DETACH, log, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    )
    try:
        return os.pidfd_open(int(done.stdout))
    except ProcessLookupError:
        raise _failed(endpoint, log, "it ended at once") from None


def _make_directory(path: str) -> None:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"cannot start the engine: cannot make {path}: {error.strerror}",
            code="engine-not-started",
            subject=path,
            hint="set PROA_ROOT and PROA_RUN to directories you can write to",
        ) from None


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ended(pidfd: int) -> bool:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _failed(endpoint: Endpoint, log: str, why: str) -> Unavailable:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()[-_LOG_LINES:]
    except OSError:
        lines = []
    tail = "".join(f"\n    {line}" for line in lines)
    return Unavailable(
        f"cannot start the engine at {endpoint}: {why}{tail}",
        code="engine-not-started",
        subject=str(endpoint),
        hint=f"its log is {log}; `proa system service` runs it in the foreground",
    )


def _site_knows(directory: str) -> bool:
    """Whether an isolated interpreter with its site finds proa in this directory."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    prefixes = {os.path.dirname(os.path.dirname(sys.executable)), "/usr", "/usr/local"}
    places = [
        f"{p}/{lib}/{v}/{kind}"
        for p in prefixes
        for lib in ("lib", "lib64")
        for v in (version, "python3")
        for kind in ("site-packages", "dist-packages")
    ]
    return directory in places or any(_points_at(place, directory) for place in places)


def _points_at(place: str, directory: str) -> bool:
    try:
        names = os.listdir(place)
    except OSError:
        return False
    for name in names:
        if name.startswith("__editable__.proa-") and name.endswith(".pth"):
            with open(f"{place}/{name}") as file:
                if directory in file.read().splitlines():
                    return True
    return False
