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

from proa.linux.files import close_all_but
from proa.linux.process import PR_SET_CHILD_SUBREAPER, prctl
from proa.monitor import title
from proa.monitor.launcher import child, linger
from proa.monitor.scribe import write_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket

__all__ = ["END_IS_TOLD", "told", "wait"]

#: What the launcher says when it has done all that is to do at the container's end.
END_IS_TOLD = b"."
# A process closes its output a moment before it has ended.
_END_FOLLOWS_MS = 3

_AF_UNIX = int(_socket.AF_UNIX)
_SOCK_SEQPACKET = int(_socket.SOCK_SEQPACKET)
_CMSG_CLOEXEC = int(_socket.MSG_CMSG_CLOEXEC)
_FDS_SIZE = _socket.CMSG_SPACE(4 * 253)
_MESSAGE_SIZE = 64 << 10
_NO_SIGNAL = int(_socket.MSG_NOSIGNAL)


def wait(
    orders_fd: int, launch: Callable[[int, socket], None]
) -> tuple[bytes, array[int], bytes, list[int], int] | None:
    """Be the monitor of one container until something happens to it that is more than output for its log.

    A launcher waits on `orders_fd` for the engine's connection and starts the container (`launch`, given this process's
    id and a channel to it). Returns what it handed over (`starting.take`), what a scribe reported last, the children
    that end soon and are to be collected, and, if the container's process was collected, where is told how it ended,
    else -1. None when there is nothing to do: the launcher told the engine why there is no container, or has seen to
    its end, or was lent for an exec, which has ended.
    """
    os.setsid()
    ours, theirs = _socket.socketpair(_AF_UNIX, _SOCK_SEQPACKET, 0)
    monitor_pid = os.getpid()
    child_pid = os.fork()
    if child_pid == 0:
        ours.close()
        child(partial(launch, monitor_pid), theirs.detach())
    os.close(orders_fd)
    theirs.close()
    message, control, _, _ = ours.recvmsg(_MESSAGE_SIZE, _FDS_SIZE, _CMSG_CLOEXEC)
    if message == b"adopt":
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        ours.send(b"1")
        message, control, _, _ = ours.recvmsg(_MESSAGE_SIZE, _FDS_SIZE, _CMSG_CLOEXEC)
    if message[:5] == b"exec ":
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        ours.send(b"1")
    if not control:
        ours.close()
        os.waitpid(child_pid, 0)
        return None
    fds = array("i")
    fds.frombytes(control[0][2])
    if message[:5] == b"exec ":
        ours.close()
        _reap_for(fds[0], int(message[5:]))
        return None
    short_id, waking, logging, _ = message.split(b" ", 3)
    ending = [child_pid]
    title.set_title(b"proa monitor " + short_id, b"proa:" + short_id)
    last = int(waking)
    first_output = last - int(logging)
    outputs = fds[first_output:last]
    sleeping = select.epoll()
    for fd in fds[:last]:
        sleeping.register(fd, 1)
    # The launcher lingers; who waited for that would not see a container end that is done before.
    launcher_fd = os.pidfd_open(child_pid)
    sleeping.register(launcher_fd, 1)
    launcher = ours
    attends = True
    report = b""
    while True:
        said = False
        for fd, _ in sleeping.poll():
            if fd in outputs:
                said = True
            elif fd == launcher_fd:
                sleeping.unregister(fd)
                os.close(fd)
                launcher.close()
                attends = False
                while ending:
                    os.waitpid(ending.pop(), 0)
            else:
                sleeping.close()
                reaper_fd = -1
                if ending:
                    os.close(launcher_fd)
                if attends:
                    # Of the engine's connections nothing follows.
                    reaper_fd = _launcher_ends(launcher, fds[2], 0 if fd in fds[:2] else _END_FOLLOWS_MS)
                    if reaper_fd == _DONE:
                        _collect(ending)
                        return None
                return message, fds, report, ending, reaper_fd
        if not said:
            continue
        if attends:
            attends = False
            reaper_fd = _launcher_ends(launcher, fds[2], _END_FOLLOWS_MS)
            if reaper_fd == _DONE:
                _collect(ending)
                return None
            if reaper_fd >= 0:
                sleeping.close()
                os.close(launcher_fd)
                return message, fds, report, ending, reaper_fd
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
            if ending:
                os.close(launcher_fd)
            return message, fds, report, ending, -1
        for fd in outputs:
            sleeping.register(fd, 1)


_DONE = -2


def _launcher_ends(launcher: _socket.socket, pidfd: int, patience_ms: int) -> int:
    """Have the lingering launcher see to the end of the container's process, if that has ended or does so now.

    Returns _DONE when it did, -1 when there is no end yet; else a descriptor that tells how the process ended, as then
    the launcher has gone. It is dismissed in any case.
    """
    waiting = select.poll()
    waiting.register(launcher, 1)  # it does not speak before it is asked, so it has gone
    waiting.register(pidfd, 1)
    if not any(fd == pidfd for fd, _ in waiting.poll(patience_ms)):
        launcher.close()
        return -1
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert ended is not None
    code = b"%d" % (ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status)
    try:
        launcher.send(code, _NO_SIGNAL)
        if launcher.recv(len(END_IS_TOLD)) == END_IS_TOLD:
            return _DONE
    except OSError:
        pass
    launcher.close()
    return told(code)


def told(code: bytes) -> int:
    """A descriptor that tells how a process ended (`Child`)."""
    reading, telling = os.pipe2(os.O_CLOEXEC)
    os.write(telling, code)
    os.close(telling)
    return reading


def _collect(ending: list[int]) -> None:
    """Let go of everything and wait for the launcher, which ends when nobody needs the processor."""
    close_all_but(())
    while ending:
        os.waitpid(ending.pop(), 0)


def _reap_for(monitor_fd: int, pid: int) -> None:
    """Tell the monitor that this process's launcher was lent to how the exec `pid` ends, our child when that ends."""
    title.set_title(b"proa exec", b"proa:exec")
    while True:
        ended, status = os.wait()
        if ended == pid:
            os.write(monitor_fd, b"%d" % os.waitstatus_to_exitcode(status))
            linger()
            return
