"""Shared memory of another container: its /dev/shm, taken out of its mount namespace."""

from __future__ import annotations

import os

from proa.errors import Conflict, Invalid
from proa.linux import mount as m
from proa.linux import process as p
from proa.runtime.mount_options import MountOptions
from proa.runtime.steps.mounts import OnDestination, attach
from proa.runtime.steps.step import Init

# The type of such a mount in config.json: an extension of ours. Its source is the path of the mount namespace.
FROM_NAMESPACE = "proa-shm-of"
SHM = "/dev/shm"  # noqa: S108


class ShareMemory(OnDestination):
    """Mount another container's /dev/shm. A detached tree can only be made inside the namespace it is in."""

    __slots__ = ("namespace",)
    name = "sharing memory"

    def __init__(self, namespace: str, destination: str, options: MountOptions) -> None:
        if destination != SHM:
            raise Invalid(f"only {SHM} can be another container's", code="invalid-config", subject=destination)
        super().__init__(destination, options)
        self.namespace = namespace

    def what(self) -> str:
        return f"mount {SHM} of {self.namespace}"

    def execute(self, init: Init) -> None:
        other = os.open(self.namespace, os.O_RDONLY | os.O_CLOEXEC)
        own = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        # Entering a mount namespace also means its topmost root, which need not be where we are: an engine may have
        # been started in a chroot.
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            p.setns(other, p.CLONE_NEWNS)
            try:
                tree = m.open_tree(m.AT_FDCWD, SHM, m.OPEN_TREE_CLONE | m.AT_SYMLINK_NOFOLLOW)
            finally:
                p.setns(own, p.CLONE_NEWNS)
                os.fchdir(root)
                os.chroot(".")
                os.fchdir(here)
        finally:
            for fd in (other, own, root, here):
                os.close(fd)
        if m.fstatfs_magic(tree) != m.TMPFS_MAGIC:
            os.close(tree)
            raise Conflict(f"the other container has no shared memory at {SHM}", code="no-shared-memory", subject=SHM)
        attach(init, tree, self.destination, self.options)
