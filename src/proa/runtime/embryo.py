"""A process cloned ahead of its order, so that a start waits neither for namespaces nor for page faults.

    launcher                                    embryo
    conceive ------------------------------> in its pid, ipc and network namespace, loopback up, waiting
    order(message, netns) -----------------> compiles the plan, mounts the root file system …
    … makes the cgroup and the streams
    start(stdio, cgroup) ------------------> enters the cgroup, takes the streams, goes on; execve
    outcome <------------------------------- as from every launch (`channel`)

What must be as it is at the time of the start is made only then: the mount namespace, a copy of the host's, would keep
file systems busy and miss later mounts; the uts namespace would have an old host name.

With version 2 an embryo is of no use (`usable`): a process that is born in a cgroup costs no more than any other, one
that moves in waits for the lock that all forks of the machine share. That is 13 ms here (7 at best), several times what
an embryo saves, and a cgroup made ahead cannot be given the container's name, as version 2 has no renaming.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from proa.errors import Internal, ProaError
from proa.linux import mount as m
from proa.linux import process as p
from proa.linux.sockets import receive_fds, send_fds, set_interface_up
from proa.runtime.channel import Channel
from proa.runtime.init_program import init_program
from proa.runtime.launching import Joinable, Launch, Stdio, run_steps, take_stdio
from proa.runtime.plan import Plan
from proa.runtime.root import open_directory
from proa.runtime.steps.command import find_program
from proa.runtime.steps.isolation import JoinCgroups, JoinNamespaces, NewNamespaces, NewSession
from proa.runtime.steps.mounts import MountCgroup
from proa.runtime.steps.rootfs import PivotRoot
from proa.runtime.steps.step import Init, Step
from proa.runtime.users import resolve_user

__all__ = ["LARGEST_ORDER_BYTES", "Embryo", "conceive", "rehearse_steps", "usable"]

# What certainly fits into one datagram, whatever net.core.wmem_default is.
LARGEST_ORDER_BYTES = 64 << 10
_LARGEST_START_BYTES = 16 << 10

_AHEAD = p.CLONE_NEWPID | p.CLONE_NEWIPC | p.CLONE_NEWNET
_LATE = p.CLONE_NEWNS | p.CLONE_NEWUTS
_KINDS = frozenset(("mount", "pid", "uts", "ipc", "network"))


_directories = msgspec.json.Decoder(dict[str, str])
_encoder = msgspec.json.Encoder()


class Embryo(Launch):
    """A cloned process that waits for its order: `order`, `start`, `outcome`; or `abandon` at any time."""

    __slots__ = ()

    def order(self, message: bytes, netns_fd: int | None = None) -> None:
        """Let it begin with the plan of `message` (at most LARGEST_ORDER_BYTES), as `conceive` was told how.

        netns_fd: a network namespace to join in place of its own. Raises OSError when it is gone.
        """
        send_fds(self._channel, message, () if netns_fd is None else (netns_fd,))

    def start(self, *, stdio: Stdio, cgroup: Joinable | None = None) -> None:
        """Let it go on. stdio: all three, or none with a terminal. Raises OSError when it is gone."""
        joins, born_in = cgroup.open_join_fds() if cgroup is not None else ([], None)
        try:
            if born_in is not None:
                os.close(born_in)
                raise Internal("an embryo cannot enter a cgroup of version 2", code="embryo-misused")
            directories = dict(cgroup.directories) if cgroup is not None else {}
            send_fds(self._channel, _encoder.encode(directories), [*joins, *(fd for fd in stdio if fd >= 0)])
        finally:
            for fd in joins:
                os.close(fd)

    def fileno(self) -> int:
        """The descriptor whose closing lets it end."""
        return self._channel.fileno()


class _TakeStart(Step):
    """Wait for what `Embryo.start` sends: enter the cgroup, take the streams. Ends with the launcher."""

    __slots__ = ("new_namespace", "terminal")
    name = "entering the cgroup"

    def __init__(self, *, new_namespace: bool, terminal: bool) -> None:
        self.new_namespace = new_namespace
        self.terminal = terminal

    def execute(self, init: Init) -> None:
        message, fds = receive_fds(init.channel.socket, _LARGEST_START_BYTES)
        if not message:
            os._exit(0)
        init.cgroup_dirs = _directories.decode(message)
        streams = [] if self.terminal else fds[-3:]
        joins = fds[: len(fds) - len(streams)]
        if joins or self.new_namespace:
            JoinCgroups(joins, new_namespace=self.new_namespace).execute(init)
        take_stdio(init, Stdio(*streams))


def _steps(plan: Plan, netns_fd: int | None) -> list[Step]:
    """The plan's steps, with those of an embryo before and, as late as possible, between them."""
    steps: list[Step] = [NewSession(), NewNamespaces(_LATE)]
    if netns_fd is not None:
        steps.append(JoinNamespaces([(netns_fd, p.CLONE_NEWNET)]))
    # The container's cgroups are shown in its /sys; and what the pivot makes unreachable must be at hand before.
    late = next(i for i, step in enumerate(plan.steps) if isinstance(step, MountCgroup | PivotRoot))
    steps += plan.steps[:late]
    steps.append(_TakeStart(new_namespace=plan.cgroup_namespace, terminal=plan.terminal))
    steps += plan.steps[late:]
    return steps


def rehearse_steps() -> None:
    """Go through code of the steps that has no effect, on the host's root."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve_user(root, "0")
        os.close(open_directory(root, "/proc/self"))
        find_program("true", "/nowhere:/bin:/usr/bin")
        fs = m.fsopen("tmpfs")
        m.fsconfig_string(fs, "mode", "755")
        os.close(fs)
    except (OSError, ProaError):
        pass  # whatever is odd about this host, a start will find and tell
    finally:
        os.close(root)


def usable(namespaces: Sequence[Mapping[str, Any]], hierarchies: Sequence[str]) -> bool:
    """Whether an embryo can become the container with these OCI `linux.namespaces` on a machine with these cgroups."""
    kinds = {namespace.get("type") for namespace in namespaces if not namespace.get("path")}
    return kinds - {"cgroup"} == _KINDS and len(namespaces) == len(kinds) and list(hierarchies) != [""]


def conceive(compile_order: Callable[[bytes], Plan], prepare: Callable[[], None], close: Sequence[int]) -> Embryo:
    """Clone a sibling of this process (CLONE_PARENT) that waits to become a container's first process.

    compile_order: how it makes a plan of the order. prepare: called in it while there is time. close: descriptors that
    it must not keep. It ends by itself when this process does. Only for single-threaded processes. Raises OSError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        p.prctl(p.PR_SET_DUMPABLE, 0)
        pid, pidfd = p.clone3(_AHEAD | p.CLONE_PARENT, exit_signal=0)
        if pid == 0:
            _wait(theirs, (ours.fileno(), *close), compile_order, prepare)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Embryo(pid, pidfd, ours)


def _wait(
    sock: socket.socket, close: Sequence[int], compile_order: Callable[[bytes], Plan], prepare: Callable[[], None]
) -> NoReturn:
    """The embryo: wait for order and start, then run the steps. Ends without a word when the launcher is gone."""
    channel = Channel(sock)
    try:
        for fd in close:
            os.close(fd)
        set_interface_up("lo")
        prepare()
        message, fds = receive_fds(sock, LARGEST_ORDER_BYTES, 1)
        if not message:
            os._exit(0)
        plan = compile_order(message)
        if plan.join or plan.namespaces != _AHEAD | _LATE:
            raise Internal("the plan needs other namespaces", code="embryo-misused")
        steps = _steps(plan, fds[0] if fds else None)
        init = Init(channel, {}, init_program() if plan.below_init else -1)
    except BaseException as error:  # noqa: BLE001 - nothing may leave this function
        channel.fail("preparing the container", "", error)
        os._exit(255)
    run_steps(steps, init, None)
