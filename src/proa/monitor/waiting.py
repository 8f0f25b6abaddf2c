"""A monitor before the first event: what an idle container costs.

The process is a copy-on-write copy of the nursery, so it costs what it writes, and everything Python touches it writes
to (reference counts). Hence this one flat function on C primitives: it has a launcher start the container, takes over
the descriptors unopened, and sleeps. The first event builds `container.Container`.
"""

from __future__ import annotations

import _socket
import os
import select
from array import array

from proa.monitor import title
from proa.monitor.launcher import child
from proa.monitor.starting import start_container

__all__ = ["wait"]

_AF_UNIX = int(_socket.AF_UNIX)
_SOCK_SEQPACKET = int(_socket.SOCK_SEQPACKET)
_CMSG_CLOEXEC = int(_socket.MSG_CMSG_CLOEXEC)
_FDS_SIZE = _socket.CMSG_SPACE(4 * 253)
_MESSAGE_SIZE = 64 << 10


def wait(orders_fd: int) -> tuple[bytes, array[int]] | None:
    """Be the monitor of one container until something happens to it.

    A launcher waits on `orders_fd` for the engine's connection and starts the container. Returns what it handed over
    (`starting.take`), at the first event; None when there is no container: then the launcher told the engine why.
    """
    os.setsid()
    ours, theirs = _socket.socketpair(_AF_UNIX, _SOCK_SEQPACKET, 0)
    monitor_pid = os.getpid()
    launcher_pid = os.fork()
    if launcher_pid == 0:
        ours.close()
        child(lambda channel: start_container(orders_fd, monitor_pid, channel), theirs.detach())
    os.close(orders_fd)
    theirs.close()
    message, control, _, _ = ours.recvmsg(_MESSAGE_SIZE, _FDS_SIZE, _CMSG_CLOEXEC)
    ours.close()
    os.waitpid(launcher_pid, 0)
    if not control:
        return None
    fds = array("i")
    fds.frombytes(control[0][2])
    short_id, events, _ = message.split(b" ", 2)
    title.set_title(b"proa monitor " + short_id, b"proa:" + short_id)
    sleeping = select.epoll()
    for fd in fds[: int(events)]:
        sleeping.register(fd, 1)
    sleeping.poll()
    sleeping.close()
    return message, fds
