"""What every step is, and the state that steps share inside the child."""

from __future__ import annotations

import os

from proa.runtime.channel import Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import ClassVar


class Init:
    """State of the process that becomes the container's: fds that later steps need, and what was found out on the way.

    root_fd:     the root of the container's tree (O_PATH), before and after the pivot.
    proc_fd:     a procfs mount of the container's own, reached without any path; -1 before it is mounted.
    devpts_fd:   likewise the devpts mount.
    null_fd:     a detached mount of the host's /dev/null, checked to be the device.
    dev_bound:   whether /dev is a directory of the host, which nothing may be made in.
    trees:       detached copies of mounts, by destination, that only the host's side could make: whose sharing with the
                 host must be kept, or that are shown through the maps of a user namespace.
    root_tree:   likewise the root file system; -1 when it is to be mounted here.
    state:       the state document that hooks get.
    to_give:     mounts whose files the container's user is to own, once the user is known.
    propagation: (mount fd, MS_* flags, recursive) to apply after the pivot.
    cgroup_dirs: host directories of the container's cgroup by controller; "" for version 2.
    home:        home directory of the user, known once the user is.
    """

    __slots__ = (
        "cgroup_dirs",
        "channel",
        "cwd_done",
        "dev_bound",
        "devpts_fd",
        "gid",
        "gids",
        "home",
        "null_fd",
        "proc_fd",
        "program_fd",
        "propagation",
        "root_fd",
        "root_tree",
        "state",
        "to_give",
        "trees",
        "uid",
    )

    def __init__(self, channel: Channel, cgroup_dirs: Mapping[str, str], program_fd: int = -1) -> None:
        self.channel = channel
        self.cgroup_dirs = cgroup_dirs
        self.program_fd = program_fd
        self.root_fd = -1
        self.root_tree = -1
        self.state = b""
        self.proc_fd = -1
        self.devpts_fd = -1
        self.null_fd = -1
        self.dev_bound = False
        self.trees: dict[str, int] = {}
        self.to_give: list[int] = []
        self.propagation: list[tuple[int, int, bool]] = []
        self.uid = 0
        self.gid = 0
        self.gids: list[int] = []
        self.home = "/"
        self.cwd_done = False

    def keep_root(self, fd: int) -> None:
        """Take a new root fd in place of the old one."""
        if self.root_fd >= 0:
            os.close(self.root_fd)
        self.root_fd = fd


class Step:
    """One action. `name` is the verb phrase that error texts use: "while mounting /proc"."""

    __slots__ = ()
    name: ClassVar[str] = ""

    def describe(self) -> str:
        """One line for people: what will be done to what."""
        return self.name

    @property
    def subject(self) -> str:
        """The object of the step, for error records; empty when there is none."""
        return ""

    def execute(self, init: Init) -> None:
        """Do it. Raises OSError or a kind of `proa.errors`."""
        raise NotImplementedError
