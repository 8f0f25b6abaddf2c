"""The short-lived child in which a monitor launches a process, so that the work's memory ends with it.

A launch decodes a configuration, compiles a plan and builds a cgroup: hundreds of pages of heap that an idle monitor
would keep. A forked *launcher* does it instead and makes the new process its parent's own child (CLONE_PARENT):

    monitor --fork--> launcher --clone3(CLONE_PARENT)--> process
       <- one message with descriptors, or the record of the error; then the launcher ends

`starting` is what the launcher of a container does; `launch_process` here is an exec's.

To fork a monitor that slept, and to take the page faults then, is half of an exec's time. So the engine may lend the
launcher of a *spare* monitor, which waits in the nursery with its faults taken. The process is then its child, who
reaps it and tells its status on the connection that it answered on. A process that runs on becomes the spare's: the
launcher ends, and the spare, much smaller, collects what it orphans (PR_SET_CHILD_SUBREAPER).

    monitor --order--> lent launcher --vfork--> process
       <- the message as above                     |
       <- exit status ---- launcher, spare <--- wait      end of file without it: nobody knows
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import msgspec

from proa.errors import Internal, ProaError, from_record
from proa.linux import vfork
from proa.linux.files import close_all_but
from proa.linux.process import pidfd_send_signal
from proa.linux.sockets import receive_fds, send_fds
from proa.monitor import foreign, title
from proa.monitor.protocol import RECEIVE_BYTES, ExecRequest, LentExec, encode_line
from proa.monitor.records import ExecState
from proa.monitor.stdio import StdioPipes, monitor_ends, stdio_of
from proa.runtime import cgroups
from proa.runtime.launching import Process, launch_exec

__all__ = [
    "Launcher",
    "child",
    "failure_record",
    "fork_launcher",
    "launch_process",
    "linger",
    "order_launcher",
    "parse_launched",
    "serve_lent",
]

SIGKILL = 9
LINGER_S = 0.03

_LIMIT_BYTES = 256 << 10
_decoder = msgspec.json.Decoder(dict[str, Any])


class Launcher:
    """The monitor's view of a launcher: a socket that becomes readable when it is done."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid  # 0: lent, no child of ours
        self._channel = channel

    def fileno(self) -> int:
        """Readable when the message came or the launcher is gone."""
        return self._channel.fileno()

    def receive(self) -> tuple[bytes, list[int]]:
        """Wait for the one message and its descriptors; no bytes when the launcher ended without."""
        try:
            return receive_fds(self._channel, _LIMIT_BYTES)
        except ConnectionError:
            return b"", []

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def detach(self) -> int:
        """The channel, on which a lent launcher's spare will tell the process's end (`Child`)."""
        return self._channel.detach()


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


def order_launcher(channel_fd: int, order: LentExec, target: Process, config_fd: int) -> Launcher | None:
    """Have a lent launcher do `launch_process`; None when it is gone, or the order too long for one message."""
    channel = socket.socket(fileno=channel_fd)
    order.fds = 2
    line = encode_line(order)
    if len(line) <= RECEIVE_BYTES:
        try:
            send_fds(channel, line, [target.pidfd, config_fd])
            return Launcher(0, channel)
        except OSError:
            pass
    channel.close()
    return None


def serve_lent(connection: socket.socket, order: LentExec, fds: Sequence[int], spare: socket.socket) -> None:
    """In a lent launcher: start the process for the monitor at `connection`, and tell how it ends or have that done."""
    try:
        pidfd, config_fd = fds
        target = Process(order.pid, pidfd, order.start_time)
        # Where the process is killed meanwhile this launcher may end with it; the monitor then takes one of its own.
        shared = vfork.available()
        started = launch_process(order.exec, target, order.cgroup, config_fd, connection, lent=True, sharing=shared)
    except Exception as error:  # noqa: BLE001 - whatever it was, the monitor must hear of it
        connection.sendall(encode_line({"error": failure_record(error)})[:_LIMIT_BYTES])
    else:
        _reap(started, connection, spare)


def _reap(started: Process, connection: socket.socket, spare: socket.socket) -> None:
    """Tell how a short process ended; have the spare do it for one that goes on."""
    ended = select.poll()
    ended.register(started.pidfd, select.POLLIN)
    if ended.poll(LINGER_S * 1000):
        _, status = os.waitpid(started.pid, 0)
        connection.send(b"%d" % os.waitstatus_to_exitcode(status))
        return
    send_fds(spare, b"exec %d" % started.pid, [connection.fileno()])
    os._exit(0)  # at once: the spare waits for that


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
            channel.sendall(encode_line({"error": failure_record(error)})[:_LIMIT_BYTES])
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
    request: ExecRequest,
    target: Process,
    cgroup_path: str,
    config_fd: int,
    channel: socket.socket,
    *,
    lent: bool = False,
    sharing: bool = False,
) -> Process:
    """In the launcher: run one more process in the container, send an ExecState with pidfd and streams.

    lent: the process becomes the launcher's child; else it is the child of its parent, the container's monitor.
    """
    pipes = None if request.tty else StdioPipes(stdin=request.stdin, discard=request.attach is None)
    config = _decoder.decode(os.pread(config_fd, os.fstat(config_fd).st_size, 0))
    wanted = _decoder.decode(request.process)
    if "foreign" in config:
        other = msgspec.convert(config["foreign"], foreign.Foreign)
        group = cgroups.open_existing(cgroup_path) if cgroup_path else None
        stdio, number = stdio_of(pipes), request.id[:12]
        started = foreign.execute(other, wanted, target, stdio=stdio, number=number, cgroup=group)
    else:
        started = launch_exec(
            target,
            wanted,
            config=config,
            stdio=stdio_of(pipes),
            cgroup=cgroups.open_existing(cgroup_path) if cgroup_path else None,
            sibling=not lent,
            sharing=sharing,
        )
    state = ExecState(request.id, started.pid, started.start_time, request.tty)
    outputs, stdin_fd = monitor_ends(pipes, started.console_fd, stdin=request.stdin)
    fds = [started.pidfd, *outputs] if stdin_fd < 0 else [started.pidfd, *outputs, stdin_fd]
    try:
        send_fds(channel, encode_line({"ok": state}), fds)
    except OSError:
        pidfd_send_signal(started.pidfd, SIGKILL)  # the monitor has died, and nobody would ever hear of it
        raise
    return started


def parse_launched(data: bytes) -> ExecState:
    """The exec that a launcher's message tells of; raises the launch's typed error."""
    if not data:
        raise Internal("the launcher ended without a word", code="launcher-died")
    answer = _decoder.decode(data)
    if "error" in answer:
        raise from_record(answer["error"])
    return msgspec.convert(answer["ok"], ExecState)
