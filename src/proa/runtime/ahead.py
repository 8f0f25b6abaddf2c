"""Namespaces made before the container that gets them is asked for: they are a millisecond of a start.

The process that will start the container makes them for its next child. What must be as it is at the time of the start
is made only then: the mount namespace, a copy of the host's, would keep file systems busy and miss later mounts; the
uts namespace would have an old host name.
"""

from __future__ import annotations

import os

from proa.linux import process as p
from proa.linux.sockets import set_interface_up
from proa.runtime.plan import Plan

__all__ = ["Ahead", "make_ahead"]

_PENDING = p.CLONE_NEWPID | p.CLONE_NEWIPC
_AHEAD = _PENDING | p.CLONE_NEWNET


class Ahead:
    """Namespaces pid, ipc and network that wait for a container.

    This process's next child is born in the first; this process itself is in the second, and holds the third open.
    """

    __slots__ = ("_before", "netns_fd")

    def __init__(self, before: int, netns_fd: int) -> None:
        self._before = before  # pidfd of a process in the namespaces of before
        self.netns_fd = netns_fd

    def take(self, plan: Plan) -> int:
        """The CLONE_NEW* kinds of `plan` that need not be made; 0 when they do not fit, and then there are none."""
        if plan.namespaces & _AHEAD == _AHEAD and not plan.join and plan.user is None:
            return _AHEAD
        self.leave()
        return 0

    def leave(self) -> None:
        """Have children born in the namespaces of before."""
        p.setns(self._before, _PENDING)


def make_ahead() -> Ahead | None:
    """Make them; None where there is no way back, in a user namespace. Only for single-threaded processes.

    Raises OSError where there are to be no more namespaces.
    """
    if p.in_user_namespace():
        return None
    before = p.pidfd_open(os.getppid())  # whoever that is now, they are in the namespaces that this one was born in
    try:
        p.unshare(p.CLONE_NEWNET)
        try:
            set_interface_up("lo")
            netns_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            p.setns(before, p.CLONE_NEWNET)
        p.unshare(_PENDING)
    except BaseException:
        os.close(before)
        raise
    return Ahead(before, netns_fd)
