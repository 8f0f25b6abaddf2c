"""A monitor before the first event: what an idle container costs.

The process is a copy-on-write copy of the nursery, so it costs what it writes, and everything Python touches it writes
to (reference counts). Hence this one flat function on C primitives: it has a launcher start the container, takes over
the descriptors unopened, and sleeps. While the container only writes to its log, scribes come and go; the first other
event builds `container.Container`, which stays.
"""

from __future__ import annotations

import _socket
import os
import select
from array import array
from collections.abc import Callable
from functools import partial

from proa.linux.process import PR_SET_CHILD_SUBREAPER, prctl
from proa.monitor import title
from proa.monitor.launcher import child, linger
from proa.monitor.scribe import write_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket

__all__ = ["wait"]

_AF_UNIX = int(_socket.AF_UNIX)
_SOCK_SEQPACKET = int(_socket.SOCK_SEQPACKET)
_CMSG_CLOEXEC = int(_socket.MSG_CMSG_CLOEXEC)
_FDS_SIZE = _socket.CMSG_SPACE(4 * 253)
_MESSAGE_SIZE = 64 << 10


def wait(orders_fd: int, launch: Callable[[int, socket], None]) -> tuple[bytes, array[int], bytes] | None:
    """Be the monitor of one container until something happens to it that is more than output for its log.

    A launcher waits on `orders_fd` for the engine's connection and starts the container (`launch`, given this process's
    id and a channel to it). Returns what it handed over (`starting.take`) and what a scribe reported last. None when
    there is nothing to do: the launcher told the engine why there is no container, or has seen to its end, or was lent
    for an exec, which has ended.
    """
    os.setsid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # the launcher's child is this process's when the launcher ends
    ours, theirs = _socket.socketpair(_AF_UNIX, _SOCK_SEQPACKET, 0)
    monitor_pid = os.getpid()
    child_pid = os.fork()
    if child_pid == 0:
        ours.close()
        child(partial(launch, monitor_pid), theirs.detach())
    os.close(orders_fd)
    theirs.close()
    message, control, _, _ = ours.recvmsg(_MESSAGE_SIZE, _FDS_SIZE, _CMSG_CLOEXEC)
    ours.close()
    os.waitpid(child_pid, 0)
    if not control:
        return None
    fds = array("i")
    fds.frombytes(control[0][2])
    if message[:5] == b"exec ":
        _reap_for(fds[0], int(message[5:]))
        return None
    short_id, waking, logging, adopts, _ = message.split(b" ", 4)
    if adopts == b"0":  # what a container without a pid namespace orphans is not ours
        prctl(PR_SET_CHILD_SUBREAPER, 0)
    title.set_title(b"proa monitor " + short_id, b"proa:" + short_id)
    last = int(waking)
    first_output = last - int(logging)
    outputs = fds[first_output:last]
    sleeping = select.epoll()
    for fd in fds[:last]:
        sleeping.register(fd, 1)
    report = b""
    while True:
        if any(fd not in outputs for fd, _ in sleeping.poll()):
            sleeping.close()
            return message, fds, report
        # Output and nothing else: a scribe logs it and ends when it falls silent, so that this process stays small.
        ours, theirs = _socket.socketpair(_AF_UNIX, _SOCK_SEQPACKET, 0)
        child_pid = os.fork()
        if child_pid == 0:
            ours.close()
            child(partial(write_log, message, fds, report), theirs.detach())
        theirs.close()
        for fd in outputs:
            sleeping.unregister(fd)
        sleeping.register(ours, 1)
        for fd, _ in sleeping.poll():
            if fd != ours.fileno():
                ours.shutdown(1)  # asks the scribe to end
        report = ours.recv(_MESSAGE_SIZE)
        sleeping.unregister(ours)
        ours.close()
        os.waitpid(child_pid, 0)
        if report[:1] != b"+":  # an output ended, or the scribe died
            sleeping.close()
            return message, fds, report
        for fd in outputs:
            sleeping.register(fd, 1)


def _reap_for(monitor_fd: int, pid: int) -> None:
    """Tell the monitor that this process's launcher was lent to how the exec `pid` ends, our child when that ends."""
    title.set_title(b"proa exec", b"proa:exec")
    while True:
        ended, status = os.wait()
        if ended == pid:
            os.write(monitor_fd, b"%d" % os.waitstatus_to_exitcode(status))
            linger()
            return
