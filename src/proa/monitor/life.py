"""A monitor's whole life; and the end of a container that is soon over, which its launcher sees to.

A monitor that waits has touched next to nothing, so its first event costs it hundreds of page faults. Its launcher has
them behind it, so it is the container's monitor for a moment, and hands over what lasts longer, or is asked something:

    monitor --fork--> launcher --vfork--> process
                          | <-------------- wait    log, streams, cgroup, exit.json, `exit`
       <- handoff --------+  or that; the process is the monitor's child then (PR_SET_CHILD_SUBREAPER)
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from functools import partial

from proa.linux import process, signals, vfork
from proa.linux.files import close_all_but
from proa.linux.sockets import send_fds
from proa.monitor import lent
from proa.monitor.container import Container
from proa.monitor.launcher import ends_soon, linger
from proa.monitor.loop import Loop
from proa.monitor.protocol import Attach, LogOptions, StartRequest, encode_line
from proa.monitor.records import ExitRecord, MonitorState, ProcessIdentity, boot_id, encode_record
from proa.monitor.starting import Handoff, Started, start_container
from proa.monitor.waiting import wait

__all__ = ["main", "rehearse_end"]


def main(orders_fd: int, nursery_pid: int) -> None:
    """Be the monitor of one container; returns when all is done, or when there is no container to watch."""
    handed_over = wait(orders_fd, partial(_launch, orders_fd, nursery_pid))
    if handed_over is not None:
        loop = Loop()
        container = Container(loop, *handed_over)
        loop.when_idle(container.rest)
        container.run()


def _launch(orders_fd: int, nursery_pid: int, monitor_pid: int, channel: socket.socket) -> None:
    """The launcher: start the container, and see to its end if that is soon; else hand over, and end at once."""
    process.prctl(process.PR_SET_PDEATHSIG, signals.SIGKILL)  # the next start is then another spare's
    started = start_container(orders_fd, nursery_pid, monitor_pid, channel, rehearse_end)
    if started is None:
        return
    if started.is_child:
        close_all_but((channel.fileno(), *started.fds))
        # The processor has nothing better to do until the end; an end that comes later is for another one to see to.
        container = Container(Loop(), started.message, started.fds) if started.is_plain else None
        if _ends_soon(started):
            (container or Container(Loop(), started.message, started.fds)).run()
            linger()
            return
    with suppress(ConnectionError):  # somebody has killed the monitor: the engine hears of it
        send_fds(channel, started.message, started.fds)


def _ends_soon(started: Started) -> bool:
    """Whether the container ends before there is anything else to do."""
    connection, listener, pidfd, *others = started.fds[: started.waking]
    return ends_soon(pidfd, others, {connection: select.POLLIN, listener: select.POLLIN})


def _ended_child() -> int:
    """The pidfd of a child that has ended; by `vfork` where that can be, as a copy would share all pages anew."""
    if vfork.available():
        return vfork.vfork(0, int(signals.SIGCHLD), lambda: os._exit(0))[1]
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return os.pidfd_open(pid)


def _ended_outputs() -> list[int]:
    """What is to be read of a process that has ended and said nothing."""
    outputs = []
    for _ in range(2):
        output, written = os.pipe2(os.O_CLOEXEC)
        outputs.append(output)
        os.close(written)
    return outputs


class _Rehearsal(Container):
    """An end that leaves no trace."""

    def _record(self, record: ExitRecord) -> None:
        encode_record(record)


def rehearse_end() -> None:
    """Go through the motions of a container's end without effect (`starting.rehearse`)."""
    request = StartRequest(id="0" * 12, dir="/", socket="/", config={}, attach=[Attach()], log=LogOptions("none"))
    identity = ProcessIdentity(1, 1)
    state = MonitorState("0" * 12, boot_id(), 1, 1, identity, "/", "", False, "")
    ours, theirs = socket.socketpair()
    client, attached = socket.socketpair()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")  # a name that the kernel picks, in this network namespace
    listener.listen(1)
    # Nothing can be made in that directory, nor removed.
    unused = [os.open("/proc/self/fdinfo", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for _ in range(3)]
    fds = [ours.detach(), listener.detach(), _ended_child(), attached.detach(), *_ended_outputs(), *unused]
    container = _Rehearsal(Loop(), b"0 0 0 0 " + encode_line(Handoff(request, state)), fds)
    container.run()
    for peer in tuple(container.server.peers):
        peer.close()
    for end in (theirs, client):
        end.close()
    for fd in unused[:2]:
        os.close(fd)
    lent.rehearse(_ended_child(), _ended_outputs())
