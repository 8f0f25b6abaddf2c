"""The short-lived child in which a monitor launches a process, so that the work's memory ends with it.

A launch decodes a configuration, compiles a plan and builds a cgroup: hundreds of pages of heap that an idle monitor
would keep. A forked *launcher* does it instead and makes the new process its parent's own child (CLONE_PARENT):

    monitor --fork--> launcher --clone3(CLONE_PARENT)--> process
       <- one message with descriptors, or the record of the error; then the launcher ends

`starting` is what the launcher of a container does; `launch_process` here is an exec's, where the nursery has none to
lend (`lent`).
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from proa.errors import Internal, ProaError, from_record
from proa.linux.files import close_all_but
from proa.linux.process import pidfd_send_signal
from proa.linux.sockets import receive_fds, send_fds
from proa.monitor import foreign, title
from proa.monitor.execs import ExecProcess
from proa.monitor.protocol import ExecRequest, encode_line
from proa.monitor.records import ExecState
from proa.monitor.stdio import StdioPipes, monitor_ends, stdio_of
from proa.runtime import cgroups
from proa.runtime.launching import Process, launch_exec

__all__ = [
    "LIMIT_BYTES",
    "Launcher",
    "child",
    "decode",
    "ends_soon",
    "failure_record",
    "fork_launcher",
    "launch_process",
    "linger",
    "parse_launched",
    "start_exec",
]

SIGKILL = 9
LINGER_S = 0.03
ATTEND_MS = 30
# A process closes its output a moment before it has ended.
END_FOLLOWS_MS = 3

LIMIT_BYTES = 256 << 10
decode = msgspec.json.Decoder(dict[str, Any]).decode


class Launcher:
    """The monitor's view of a launcher: a socket that becomes readable when it is done."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self._channel = channel

    def fileno(self) -> int:
        """Readable when the message came or the launcher is gone."""
        return self._channel.fileno()

    def receive(self) -> tuple[bytes, list[int]]:
        """Wait for the one message and its descriptors; no bytes when the launcher ended without."""
        try:
            return receive_fds(self._channel, LIMIT_BYTES)
        except ConnectionError:
            return b"", []

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def fork_launcher(run: Callable[[socket.socket], object]) -> Launcher:
    """Fork a child that does `run(channel)` and ends; an exception of `run` is sent as its record. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = os.fork()
    except BaseException:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        ours.close()
        child(run, theirs.detach())
    theirs.close()
    return Launcher(pid, ours)


def ends_soon(pidfd: int, outputs: Sequence[int], interrupting: Mapping[int, int]) -> bool:
    """Whether a process ends within ATTEND_MS, with nothing to tell before but its last output.

    interrupting: descriptors whose events, poll(2), are not to wait for that.
    """
    woken = select.poll()
    for fd in (pidfd, *outputs):
        woken.register(fd, select.POLLIN)
    for fd, mask in interrupting.items():
        woken.register(fd, mask)
    ready = [fd for fd, _ in woken.poll(ATTEND_MS)]
    if pidfd in ready:
        return True
    if not ready or any(fd in interrupting for fd in ready):
        return False
    end = select.poll()
    end.register(pidfd, select.POLLIN)
    return bool(end.poll(END_FOLLOWS_MS))


def linger(*kept: int) -> None:
    """Before ending: unmapping an interpreter holds a processor for a millisecond that others are waiting for now.

    Closes every descriptor but these and the standard streams: others wait for the other ends, too.
    """
    close_all_but(kept)
    time.sleep(LINGER_S)


def child(run: Callable[[socket.socket], object], channel_fd: int) -> NoReturn:
    """The launcher's whole life, in the forked process."""
    channel = socket.socket(fileno=channel_fd)
    try:
        run(channel)
    except BaseException as error:  # noqa: BLE001 - whatever it was, the monitor must hear of it
        try:
            channel.sendall(encode_line({"error": failure_record(error)})[:LIMIT_BYTES])
        except OSError:
            pass
    finally:
        os._exit(0)


def failure_record(error: BaseException) -> dict[str, Any]:
    """The error as a record; one that is not ours is also reported on stderr, with its place."""
    if not isinstance(error, ProaError):
        title.report("launcher", error)
        error = Internal(f"{type(error).__name__}: {error}", code="launch-failed")
    return error.to_record()


def launch_process(
    request: ExecRequest, target: Process, cgroup_path: str, config_fd: int, channel: socket.socket
) -> None:
    """In the launcher: run one more process in the container, send an ExecState and `ExecProcess.fds`."""
    config = decode(os.pread(config_fd, os.fstat(config_fd).st_size, 0))
    cgroup = cgroups.open_existing(cgroup_path) if cgroup_path else None
    started = start_exec(request, target, cgroup, config)
    try:
        send_fds(channel, encode_line({"ok": started.state}), started.fds)
    except OSError:
        pidfd_send_signal(started.pidfd, SIGKILL)  # the monitor has died, and nobody would ever hear of it
        raise


def start_exec(
    request: ExecRequest,
    target: Process,
    cgroup: cgroups.Cgroup | None,
    config: dict[str, Any],
    *,
    lent: bool = False,
    sharing: bool = False,
) -> ExecProcess:
    """Run one more process in the container.

    lent: it becomes the launcher's child; else it is the child of its parent, the container's monitor.
    """
    pipes = None if request.tty else StdioPipes(stdin=request.stdin, discard=request.attach is None)
    wanted = decode(request.process)
    if "foreign" in config:
        other = msgspec.convert(config["foreign"], foreign.Foreign)
        stdio, number = stdio_of(pipes), request.id[:12]
        process = foreign.execute(other, wanted, target, stdio=stdio, number=number, cgroup=cgroup)
    else:
        process = launch_exec(
            target, wanted, config=config, stdio=stdio_of(pipes), cgroup=cgroup, sibling=not lent, sharing=sharing
        )
    for fd in pipes.theirs if pipes is not None else ():
        os.close(fd)  # else their outputs would not end
    state = ExecState(request.id, process.pid, process.start_time, request.tty)
    return ExecProcess(state, process.pidfd, *monitor_ends(pipes, process.console_fd, stdin=request.stdin))


def parse_launched(data: bytes) -> ExecState:
    """The exec that a launcher's message tells of; raises the launch's typed error."""
    if not data:
        raise Internal("the launcher ended without a word", code="launcher-died")
    answer = decode(data)
    if "error" in answer:
        raise from_record(answer["error"])
    return msgspec.convert(answer["ok"], ExecState)
