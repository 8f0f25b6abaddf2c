"""What a launcher does that the nursery has lent to the engine: start an exec, and see to its end if that is soon.

To wake a monitor that slept, or to fork it, and to take the page faults then, is half of an exec's time. So the engine
orders the launcher of a *spare* monitor, which waits in the nursery with its faults taken. The process is its child,
whom it watches for a moment; what lasts longer, or is more than output, the container's monitor watches then:

    engine --order--> lent launcher --vfork--> process
       <- pid, pidfd -----  |  <-------------- wait       output and status to the client
       <- exec-exit ------- +  or
       <- handed-over ----- + --streams--> the container's monitor
                                              <- exit status --- spare: the launcher ends, and its process is the
                                                                 spare's (PR_SET_CHILD_SUBREAPER), much smaller
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from proa.errors import Conflict, ProaError
from proa.linux import process, vfork
from proa.linux.sockets import send_fds
from proa.monitor.client import Channel
from proa.monitor.execs import Exec, ExecProcess
from proa.monitor.launcher import LIMIT_BYTES, decode, ends_soon, failure_record, start_exec
from proa.monitor.loop import Loop
from proa.monitor.protocol import AdoptRequest, Attach, ExecRequest, ExecTarget, LentExec, encode_line, parse_order
from proa.monitor.records import ExecState
from proa.runtime import cgroups
from proa.runtime.launching import Process

__all__ = ["rehearse", "serve"]

# The monitor may have been stopped: whoever resumes it has the exec go on, as all else of the container.
HAND_OVER_S = 365 * 86400.0


def serve(connection: socket.socket, order: LentExec, fds: Sequence[int], spare: socket.socket) -> None:
    """Start the exec that the engine at `connection` asks for, and watch it or have it watched.

    When the process is killed before it runs its program, this launcher may end with it: the engine then has the
    monitor start it.
    """
    request = order.exec
    try:
        started = start_exec(
            request,
            _open(order.target),
            cgroups.in_directories(order.target.cgroup) if order.target.cgroup else None,
            decode(order.target.config),
            lent=True,
            sharing=vfork.available(),
        )
    except Exception as error:  # noqa: BLE001 - whatever it was, the engine must hear of it
        connection.sendall(encode_line({"error": failure_record(error)})[:LIMIT_BYTES])
        return
    _tell(connection, {"ok": started.state}, [started.pidfd])
    client_fd = fds[0] if request.attach is not None else -1
    plain = not request.tty and not request.stdin
    # Before the end, if that can be without effect: there is nothing else to do.
    exec_ = _watch(started, order, client_fd, connection) if plain else None
    client = {client_fd: 0} if client_fd >= 0 else {}
    if not (plain and ends_soon(started.pidfd, started.outputs, client) and _complete(started.outputs)):
        _hand_over(order, started, client_fd, connection, spare)
    (exec_ or _watch(started, order, client_fd, connection)).run()


def _open(target: ExecTarget) -> Process:
    """The container's first process. Raises Conflict when it has ended."""
    pid = target.pid
    try:
        pidfd = os.pidfd_open(pid)
        if process.start_time(pid) == target.start_time:
            return Process(pid, pidfd, target.start_time)
    except ProcessLookupError:
        pass
    raise Conflict("the container is not running", code="container-not-running")


def _watch(started: ExecProcess, order: LentExec, client_fd: int, connection: socket.socket) -> Exec:
    return Exec(
        Loop(),
        started,
        client_fd=client_fd,
        attach=order.exec.attach,
        on_ended=lambda exec_: _tell(connection, exec_.state.exit_event()),
    )


def _tell(connection: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    with suppress(OSError):  # an engine that has ended; what runs goes on
        send_fds(connection, encode_line(message), fds)


def _complete(outputs: Sequence[int]) -> bool:
    """Whether nobody holds the other ends any more."""
    ended = select.poll()
    for fd in outputs:
        ended.register(fd, select.POLLIN)
    return sum(bool(events & select.POLLHUP) for _, events in ended.poll(0)) == len(outputs)


def _hand_over(
    order: LentExec, started: ExecProcess, client_fd: int, connection: socket.socket, spare: socket.socket
) -> None:
    """Have the monitor watch the exec, and the spare collect it; ends this process, unless there is no monitor."""
    request = AdoptRequest(state=started.state, stdin=order.exec.stdin, attach=order.exec.attach)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fds = [theirs.fileno(), *started.fds, *([client_fd] if client_fd >= 0 else [])]
    try:
        channel = Channel.connect(order.target.socket)
        channel.request(request, fds, HAND_OVER_S)
    except ProaError:
        return  # it was killed, or its container has ended, and the process will
    _tell(connection, {"event": "handed-over"})
    send_fds(spare, b"exec %d" % started.state.pid, [ours.fileno()])
    os._exit(0)  # at once: the spare waits for that


def rehearse(pidfd: int, outputs: list[int]) -> None:
    """Go through the motions of a short exec's end without effect (`starting.rehearse`), with an ended child."""
    pid = os.getpid()
    request = ExecRequest(id="0" * 64, process=msgspec.Raw(b"{}"), attach=Attach(tells_end=True))
    line = encode_line(
        LentExec(exec=request, target=ExecTarget(pid, process.start_time(pid), {"": "/"}, msgspec.Raw(b"{}"), "/"))
    )
    order = parse_order(line)
    assert isinstance(order, LentExec)
    os.close(_open(order.target).pidfd)
    decode(order.target.config)
    connection, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client, attached = socket.socketpair()
    started = ExecProcess(ExecState("0" * 64, 1, 1), pidfd, outputs, -1)
    _tell(connection, {"ok": started.state}, [started.pidfd])
    exec_ = _watch(started, order, attached.detach(), connection)
    if ends_soon(started.pidfd, outputs, {client.fileno(): 0}) and _complete(outputs):
        exec_.run()
    for end in (connection, ours, client):
        end.close()
