"""What a container's first process cannot do for itself, done by the launcher before it clones (see `userns`).

In a user namespace that is everything that needs the host's privileges; else only making the namespaces whose maps
idmapped binds have of their own, which a process below a new root may not do any more.
"""

from __future__ import annotations

import os
import stat

from proa.errors import Unsupported
from proa.runtime.plan import Plan
from proa.runtime.steps.mounts import Bind
from proa.runtime.steps.rootfs import MountRoot
from proa.runtime.steps.shifting import is_shifted, shifted_overlay
from proa.runtime.userns import Mappings, Target, outside_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def prepare(plan: Plan, user_namespace: int, streams: Sequence[int]) -> tuple[dict[str, int], int]:
    """The detached trees of the plan's binds by destination, and of its root; the caller closes them.

    user_namespace: -1 when the container is to have none: then only binds with maps are prepared.
    Pipes among `streams` become the property of the namespace's root: it could not open /dev/stdout else.
    """
    target = Target(user_namespace, -1, -1)
    everything = user_namespace >= 0
    if plan.user is not None:
        uid, gid = outside_id(plan.user.uids, 0), outside_id(plan.user.gids, 0)
        if uid is not None and gid is not None:
            target = Target(user_namespace, uid, gid)
            for fd in streams:
                if fd >= 0 and stat.S_ISFIFO(os.fstat(fd).st_mode):
                    os.fchown(fd, uid, gid)
    trees: dict[str, int] = {}
    root = -1
    try:
        for step in plan.steps:
            if isinstance(step, Bind) and (everything or step.mappings is not None):
                trees[step.destination] = _bind(step, target)
            elif isinstance(step, MountRoot) and everything:
                root = _root(step, target, plan.user)
    except BaseException:
        for fd in (*trees.values(), root):
            if fd >= 0:
                os.close(fd)
        raise
    return trees, root


def _root(step: MountRoot, target: Target, maps: Mappings | None) -> int:
    """The root's tree; its owners are changed where the kernel shows no others (`steps.shifting`)."""
    options = [option for option in step.options if option != "idmap"]
    if maps is None or step.kind != "overlay" or len(options) == len(step.options):
        return step.open_tree(target)
    if not is_shifted(options):
        try:
            return step.open_tree(target)
        except Unsupported:
            pass
    return shifted_overlay(options, maps)


def _bind(step: Bind, target: Target) -> int:
    """The bind's tree; where the kernel shows no other owners, an empty directory is given to the container's root."""
    try:
        return step.open_tree(target)
    except Unsupported:
        tree = step.open_tree(target, mapped=False)
        status = os.fstat(tree)
        if step.mappings is None and target.uid >= 0 and _give(tree, status, target):
            return tree
        os.close(tree)
        raise


def _give(tree: int, status: os.stat_result, target: Target) -> bool:
    if not stat.S_ISDIR(status.st_mode) or status.st_uid == target.uid:
        return True
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    try:
        if os.listdir(fd):
            return False
        os.fchown(fd, target.uid, target.gid)
    finally:
        os.close(fd)
    return True
