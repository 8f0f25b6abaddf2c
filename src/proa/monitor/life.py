"""A monitor's whole life; and the end of a container that is soon over, which its launcher sees to.

A monitor that waits has touched next to nothing, so its first event costs it hundreds of page faults. Its launcher has
them behind it and lingers for a moment anyway. When the container ends meanwhile, the monitor only collects it:

    monitor --fork--> launcher --clone3(CLONE_PARENT)--> process
       <- handoff ------- |                                 |
       <- exit status ----|----------------- wait ----------+
       -- status -------> | log, streams, cgroup, exit.json, `exit`
       <- `.` ------------+      end of file without it: the monitor does all that
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from functools import partial

from proa.linux.files import close_all_but
from proa.monitor.container import Container
from proa.monitor.launcher import linger
from proa.monitor.loop import Loop
from proa.monitor.protocol import Attach, LogOptions, StartRequest, encode_line
from proa.monitor.records import ExitRecord, MonitorState, ProcessIdentity, boot_id, encode_record
from proa.monitor.starting import Handoff, Started, start_container
from proa.monitor.waiting import END_IS_TOLD, told, wait

__all__ = ["main", "rehearse_end"]

ATTEND_MS = 30


def main(orders_fd: int) -> None:
    """Be the monitor of one container; returns when all is done, or when there is no container to watch."""
    handed_over = wait(orders_fd, partial(_launch, orders_fd))
    if handed_over is not None:
        loop = Loop()
        container = Container(loop, *handed_over)
        loop.when_idle(container.rest)
        container.run()


def _launch(orders_fd: int, monitor_pid: int, channel: socket.socket) -> None:
    """The launcher: start the container, and be there for a moment in case that it ends."""
    started = start_container(orders_fd, monitor_pid, channel, rehearse_end)
    if started is not None and _attend(started, channel):
        with suppress(ConnectionError):  # somebody has killed the monitor since
            channel.send(END_IS_TOLD)
        linger()


def _attend(started: Started, channel: socket.socket) -> bool:
    """Do what is to be done at the container's end, if it ends in time and its monitor asks; whether it was done."""
    close_all_but((channel.fileno(), *started.fds))
    asked = select.poll()
    asked.register(channel, select.POLLIN)
    if not asked.poll(ATTEND_MS):
        return False
    try:
        code = channel.recv(16)
    except ConnectionResetError:  # the monitor was killed before it read what it was handed
        code = b""
    if not code:
        linger()  # the monitor has something else to do: nobody else may hold its connections now
        return False
    Container(Loop(), started.message, started.fds, b"", (), told(code)).run()
    return True


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
    outputs = []
    for _ in range(2):
        output, written = os.pipe2(os.O_CLOEXEC)
        outputs.append(output)
        os.close(written)
    # Nothing can be made in that directory, nor removed.
    unused = [os.open("/proc/self/fdinfo", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for _ in range(4)]
    fds = [ours.detach(), listener.detach(), unused.pop(), attached.detach(), *outputs, *unused]
    container = _Rehearsal(Loop(), b"0 0 0 " + encode_line(Handoff(request, state)), fds, b"", (), told(b"0"))
    container.run()
    for peer in tuple(container.server.peers):
        peer.close()
    for end in (theirs, client):
        end.close()
    for fd in unused[:2]:
        os.close(fd)
