"""Workers: confined processes for one job each, forked by a warm one (`zygote`) that starts with the first job.

    with workers.fork(UNPACK) as job:
        job.send({...}, fds)
        answer = job.attend(source)

Leaving the context kills the worker and waits until it is gone: killing is how to cancel.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Self

from proa.errors import Cancelled, Internal, Unavailable
from proa.linux.sockets import receive_fds, send_fds

__all__ = ["UNPACK", "VISIT", "Job", "Workers"]

Progress = Callable[[int], None]

#: What a worker is for: one byte, by which the zygote knows what to run.
UNPACK, VISIT = b"f", b"v"

_PIECE = 256 << 10
_PIPE_SIZE = 1 << 20
_TICK_MS = 100
_START_TIMEOUT_S = 60.0
_MESSAGE_LIMIT = 64 << 10
_FDS_PER_MESSAGE = 250

# The paths come after the standard library's, so that nothing in a site directory shadows it. The package above would
# load the whole store, of which these processes need nothing: it is represented by its path.
_PROGRAM = """
import sys, types
sys.path += sys.argv[3:]
import proa
store = sys.modules["proa.storage"] = types.ModuleType("proa.storage")
store.__path__ = [path + "/storage" for path in proa.__path__]
from proa.storage.layers.zygote import main
main(int(sys.argv[2]))
"""


class Workers:
    """Forks workers from any thread; one zygote process per instance."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._closed = False

    def fork(self, purpose: bytes) -> Job:
        """A forked worker that has said hello; a zygote that was killed meanwhile is replaced once.

        Raises Unavailable.
        """
        for attempt in (0, 1):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            control = None
            try:
                with theirs, self._lock:
                    control = self._zygote()
                    send_fds(control, purpose, [theirs.fileno()])
                return Job(ours)
            except (OSError, EOFError) as error:
                ours.close()
                with self._lock:
                    if control is self._control:  # else another thread has replaced it already
                        self._stop()
                if attempt:
                    raise Unavailable(f"the unpack process does not start: {error}", code="unpack-worker") from error
            except BaseException:
                ours.close()
                raise
        raise AssertionError

    def close(self) -> None:
        """End the zygote, and with it any worker still running."""
        with self._lock:
            self._closed = True
            self._stop()

    def _zygote(self) -> socket.socket:
        if self._closed:
            raise Unavailable("the unpacker is closed", code="unpack-closed")
        if self._control is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                fd = theirs.fileno()
                argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, "proa unpack", str(fd), *_import_path()]
                # No argument or variable of the engine's surroundings reaches it.
                self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env={}, cwd="/", pass_fds=(fd,))
            self._control = ours
        return self._control

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


class Job:
    """One worker and the conversation with it; leaving the context kills it and waits until it is gone."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._pipe = -1
        self._data = -1
        sock.settimeout(_START_TIMEOUT_S)
        message, fds = receive_fds(sock, _MESSAGE_LIMIT, 1)
        if not message or not fds:
            raise EOFError("it ended at once")
        self._pidfd = fds[0]
        sock.settimeout(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        # Readable when it has ended: only then nobody writes to the directory any more.
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        poller.poll()
        os.close(self._pidfd)
        self._close_pipe()
        self._sock.close()

    def send(
        self, job: dict[str, Any], directories: Sequence[int], data_fd: int | None, listed: Sequence[int] = ()
    ) -> None:
        """Hand over the job. Without `data_fd` the worker gets the end of a pipe that `attend` fills."""
        target, *lowers = directories
        if data_fd is None:
            data_fd, self._pipe = os.pipe2(os.O_CLOEXEC)
            try:
                fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
            except OSError:
                pass  # beyond the user's share of pipe memory: slower
            os.set_blocking(self._pipe, False)
        try:
            send_fds(self._sock, json.dumps(job).encode(), [data_fd, target, *listed])
            for start in range(0, len(lowers), _FDS_PER_MESSAGE):
                send_fds(self._sock, b"d", lowers[start : start + _FDS_PER_MESSAGE])
        except (BrokenPipeError, ConnectionResetError):
            pass  # its last words are read by `attend`
        finally:
            if self._pipe >= 0:
                os.close(data_fd)
        self._data = data_fd

    def attend(
        self, source: BinaryIO | int, progress: Progress | None, cancelled: threading.Event | None
    ) -> dict[str, Any]:
        """Feed the worker if it has to be fed, and return its answer."""
        if not isinstance(source, int):
            self._feed(source, progress, cancelled)

        def tick() -> None:
            if progress is not None and isinstance(source, int):
                # The worker reads through the same open file description.
                progress(os.lseek(source, 0, os.SEEK_CUR))

        return self.answer(cancelled, tick)

    def answer(self, cancelled: threading.Event | None, tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """The worker's next answer. Raises Unavailable when it was killed, Cancelled."""
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        while not poller.poll(_TICK_MS):
            _check(cancelled)
            tick()
        try:
            message = self._sock.recv(_MESSAGE_LIMIT)
        except ConnectionResetError:
            message = b""
        if not message:
            raise Unavailable(
                "the unpack process was killed", code="unpack-worker", hint="look for an out-of-memory kill in the log"
            )
        answer: dict[str, Any] = json.loads(message)
        if "error" not in answer and "result" not in answer:
            raise Internal("the unpack process gave no answer", code="unpack-worker")
        return answer

    def _feed(self, source: BinaryIO, progress: Progress | None, cancelled: threading.Event | None) -> None:
        poller = select.poll()
        poller.register(self._pipe, select.POLLOUT)
        done = 0
        try:
            while data := source.read(_PIECE):
                view = memoryview(data)
                while view:
                    _check(cancelled)
                    if poller.poll(_TICK_MS):
                        try:
                            view = view[os.write(self._pipe, view) :]
                        except BlockingIOError:
                            continue
                        except BrokenPipeError:
                            return  # it refused the archive before its end, and says why
                done += len(data)
                if progress is not None:
                    progress(done)
        finally:
            self._close_pipe()

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def _check(cancelled: threading.Event | None) -> None:
    if cancelled is not None and cancelled.is_set():
        raise Cancelled("unpacking was cancelled", code="unpack-cancelled")


def _import_path() -> list[str]:
    """The directories that hold proa and the codecs, wherever this interpreter found them."""
    directories: list[str] = []
    for name in ("proa", "zstandard", "isal"):
        spec = importlib.util.find_spec(name)
        for location in spec.submodule_search_locations or () if spec else ():
            parent = os.path.dirname(os.path.abspath(location))
            if parent not in directories:
                directories.append(parent)
    return directories
