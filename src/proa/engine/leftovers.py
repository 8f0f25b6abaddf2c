"""Leftovers: end what a container still has in the kernel when its monitor cannot do it any more.

A container's cgroup carries its engine's and its own id, so whatever is in it is this container's and nobody else's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection

from proa.errors import Invalid, ProaError
from proa.runtime import cgroups
from proa.runtime.cgroups.spare import remove_spares

log = logging.getLogger(__name__)

PARENT = "/proa"


def cgroup_parent(parent: str) -> str:
    """Where a container's cgroup is made, by its `--cgroup-parent`. Raises Invalid."""
    if not parent:
        return PARENT
    cleaned = "/" + parent.strip("/")
    if len(cleaned) > 1024 or "\0" in cleaned or any(part in ("", ".", "..") for part in cleaned[1:].split("/")):
        raise Invalid(f"invalid cgroup parent: {parent[:100]!r}", code="cgroup-parent")
    return cleaned


def cgroup_path(engine: str, container: str, parent: str = "") -> str:
    """The cgroup of a container, below every hierarchy. Raises Invalid for a parent that cannot be."""
    return f"{cgroup_parent(parent)}/{engine}-{container}"


def cgroup_exists(path: str) -> bool:
    """Whether a cgroup was made: what a start makes first."""
    return cgroups.open_existing(path) is not None


def end_cgroup(path: str) -> None:
    """Kill every process of a cgroup and remove it; harmless when there is none."""
    try:
        found = cgroups.open_existing(path)
        if found is not None:
            found.kill()
            found.remove()
    except (ProaError, OSError) as error:
        log.warning("removing the cgroup %s failed: %s", path, error)


def end_stray_cgroups(engine: str, running: Collection[str], parents: Collection[str] = ()) -> None:
    """End what this engine's containers left behind, except those (by id) that run.

    parents: the `--cgroup-parent` of containers that have one
    """
    remove_spares()
    prefix = f"{engine}-"
    stray = set()
    for parent in {cgroup_parent(p) for p in ("", *parents)}:
        for hierarchy in cgroups.hierarchies():
            for base in hierarchy.bases:
                try:
                    names = os.listdir(base + parent)
                except OSError:
                    continue
                mine = {name for name in names if name.startswith(prefix)}
                stray |= {f"{parent}/{name}" for name in mine if name.removeprefix(prefix) not in running}
    for path in sorted(stray):
        log.warning("ending what an interrupted start or a dead monitor left: %s", path)
        end_cgroup(path)
