"""What a container's first process cannot do for itself, done by the launcher before it clones (see `userns`).

In a user namespace that is everything that needs the host's privileges; else only making the namespaces whose maps
idmapped binds have of their own, which a process below a new root may not do any more.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from proa.runtime.plan import Plan
from proa.runtime.steps.mounts import Bind
from proa.runtime.steps.rootfs import MountRoot
from proa.runtime.userns import Target, outside_id


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
                trees[step.destination] = step.open_tree(target)
            elif isinstance(step, MountRoot) and everything:
                root = step.open_tree(target)
    except BaseException:
        for fd in (*trees.values(), root):
            if fd >= 0:
                os.close(fd)
        raise
    return trees, root
