"""Cgroups and namespaces: the first things a starting process does."""

from __future__ import annotations

import os

from proa.errors import Unsupported
from proa.linux import process as p
from proa.linux.sockets import set_interface_up
from proa.runtime.steps.step import Init, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NAMESPACE_FLAGS = {
    "mount": p.CLONE_NEWNS,
    "pid": p.CLONE_NEWPID,
    "uts": p.CLONE_NEWUTS,
    "ipc": p.CLONE_NEWIPC,
    "network": p.CLONE_NEWNET,
    "cgroup": p.CLONE_NEWCGROUP,
    "time": p.CLONE_NEWTIME,
    "user": p.CLONE_NEWUSER,
}


class NewSession(Step):
    """Lead a session of one's own, away from the monitor's terminal and process group."""

    __slots__ = ()
    name = "starting a session"

    def execute(self, init: Init) -> None:
        os.setsid()


class JoinCgroups(Step):
    """Enter the container's cgroups by writing to files the monitor holds open, then hide the way there."""

    __slots__ = ("fds", "new_namespace")
    name = "joining cgroups"

    def __init__(self, fds: Sequence[int], *, new_namespace: bool) -> None:
        self.fds = tuple(fds)
        self.new_namespace = new_namespace

    def describe(self) -> str:
        return f"join {len(self.fds)} cgroups" + (" and see them as the root" if self.new_namespace else "")

    def execute(self, init: Init) -> None:
        for fd in self.fds:
            os.write(fd, b"0")
        if self.new_namespace:
            # Only now: the namespace's root is where the process is.
            p.unshare(p.CLONE_NEWCGROUP)


class NewNamespaces(Step):
    """Enter new namespaces of these CLONE_NEW* kinds."""

    __slots__ = ("kinds",)
    name = "making namespaces"

    def __init__(self, kinds: int) -> None:
        self.kinds = kinds

    def execute(self, init: Init) -> None:
        p.unshare(self.kinds)


class BecomeRoot(Step):
    """Take on the ids of root in the user namespace that this process was born in or joined, in place of none."""

    __slots__ = ()
    name = "becoming root of the user namespace"

    def execute(self, init: Init) -> None:
        try:
            os.setgroups([])
        except PermissionError:
            pass  # forbidden where the maps were written without privileges; none are shown then that are not mapped
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        p.prctl(p.PR_SET_DUMPABLE, 0)  # the change of ids may have set it


class JoinNamespaces(Step):
    """Join existing namespaces by fd."""

    __slots__ = ("fds",)
    name = "joining namespaces"

    def __init__(self, fds: Sequence[tuple[int, int]]) -> None:
        self.fds = tuple(fds)

    def execute(self, init: Init) -> None:
        for fd, kinds in self.fds:
            p.setns(fd, kinds)


class LoopbackUp(Step):
    """Bring up the loopback interface of a new network namespace."""

    __slots__ = ()
    name = "bringing up the loopback interface"

    def execute(self, init: Init) -> None:
        set_interface_up("lo")


class SetNames(Step):
    """Set host and domain name of the uts namespace."""

    __slots__ = ("domainname", "hostname")
    name = "setting the host name"

    def __init__(self, hostname: str, domainname: str) -> None:
        self.hostname = hostname
        self.domainname = domainname

    def describe(self) -> str:
        return f"set host name {self.hostname or '-'} and domain name {self.domainname or '-'}"

    def execute(self, init: Init) -> None:
        if self.hostname:
            p.sethostname(self.hostname.encode())
        if self.domainname:
            p.setdomainname(self.domainname.encode())


class EnterContainer(Step):
    """Join every namespace of a running container but its pid namespace, which this process was born in."""

    __slots__ = ("kinds", "pidfd")
    name = "joining the container"

    def __init__(self, pidfd: int, kinds: int) -> None:
        self.pidfd = pidfd
        self.kinds = kinds

    def execute(self, init: Init) -> None:
        try:
            p.setns(self.pidfd, self.kinds)
        except OSError as error:
            if error.errno == 22:
                raise Unsupported(
                    "this kernel cannot join namespaces by pidfd",
                    code="old-kernel",
                    hint="Linux 5.8 or later is needed",
                ) from None
            raise
        init.keep_root(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
