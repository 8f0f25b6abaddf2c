"""Leftovers: end what a container still has in the kernel when its monitor cannot do it any more.

A container's cgroup carries its engine's and its own id, so whatever is in it is this container's and nobody else's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection

from proa.errors import ProaError
from proa.runtime import cgroups

log = logging.getLogger(__name__)

PARENT = "/proa"


def cgroup_path(engine: str, container: str) -> str:
    """The cgroup of a container, below every hierarchy."""
    return f"{PARENT}/{engine}-{container}"


def end_cgroup(path: str) -> None:
    """Kill every process of a cgroup and remove it; harmless when there is none."""
    try:
        found = cgroups.open_existing(path)
        if found is not None:
            found.kill()
            found.remove()
    except (ProaError, OSError) as error:
        log.warning("removing the cgroup %s failed: %s", path, error)


def end_stray_cgroups(engine: str, running: Collection[str]) -> None:
    """End what this engine's containers left behind, except those (by id) that run."""
    prefix = f"{engine}-"
    stray = set()
    for hierarchy in cgroups.hierarchies():
        for base in {hierarchy.mount_point, hierarchy.own}:
            try:
                names = os.listdir(base + PARENT)
            except OSError:
                continue
            stray |= {name for name in names if name.startswith(prefix) and name.removeprefix(prefix) not in running}
    for name in sorted(stray):
        log.warning("ending what an interrupted start or a dead monitor left: %s", name)
        end_cgroup(f"{PARENT}/{name}")
