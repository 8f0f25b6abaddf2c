"""Account for and limit what a container's processes use: cgroups of version 2, version 1 and the hybrid of both."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from typing import Any

from proa.errors import Denied, Invalid
from proa.runtime.cgroups import control_files, version2
from proa.runtime.cgroups.cgroup import Cgroup, Stats
from proa.runtime.cgroups.hierarchies import Hierarchy, hierarchies
from proa.runtime.cgroups.resources import parse_resources
from proa.runtime.cgroups.version1 import CgroupV1
from proa.runtime.cgroups.version2 import CgroupV2

__all__ = ["Cgroup", "Stats", "create", "hierarchies", "open_existing", "rehearse"]

_PATH = re.compile(r"(/[A-Za-z0-9_.:@-]{1,200}){2,8}", re.ASCII)


def create(path: str, resources: Mapping[str, Any] | None = None) -> Cgroup:
    """Make the cgroup `path` (such as /proa/<container id>) in every hierarchy, with OCI `linux.resources` applied.

    It goes below the root of each hierarchy, or where that may not be written below this process's own cgroup. Device
    rules are always set, the default ones when none are given. On any error nothing is left behind. Raises Invalid,
    Conflict (it exists), Unsupported (a limit without its controller), Denied, Exhausted.
    """
    wanted = parse_resources(resources)
    _check(path)
    made: dict[str, str] = {}
    try:
        for hierarchy in hierarchies():
            made[hierarchy.name] = _make(hierarchy, path)
        cgroup = _cgroup(made)
        cgroup.set_devices(wanted)
        if resources:
            cgroup.apply(resources)
        return cgroup
    except BaseException:
        for directory in made.values():
            control_files.remove(directory, 1.0)
        raise


def rehearse(path: str, resources: Mapping[str, Any]) -> None:
    """Go through what `create` does, without effect."""
    open_existing(path)
    wanted = parse_resources(resources)
    for rule in wanted.device_rules():
        rule.line()


def open_existing(path: str) -> Cgroup | None:
    """The cgroup `path` made earlier, by whatever process; None when nothing of it is left."""
    _check(path)
    found = {}
    for hierarchy in hierarchies():
        for base in dict.fromkeys((hierarchy.mount_point, hierarchy.own)):
            if os.path.isdir(base + path):
                found[hierarchy.name] = base + path
                break
    return _cgroup(found) if found else None


def _check(path: str) -> None:
    if not _PATH.fullmatch(path) or any(part in (".", "..") for part in path.split("/")):
        raise Invalid(f"`{path}` is not a cgroup path such as /proa/<id>", code="invalid-path", subject=path)


def _cgroup(directories: Mapping[str, str]) -> CgroupV1 | CgroupV2:
    return CgroupV2(directories[""]) if list(directories) == [""] else CgroupV1(directories)


def _make(hierarchy: Hierarchy, path: str) -> str:
    refused: OSError | None = None
    for base in dict.fromkeys((hierarchy.mount_point, hierarchy.own)):
        try:
            directory = control_files.make(base, path)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            refused = error
            continue
        if not hierarchy.name:
            version2.enable_controllers(base, path)
        return directory
    raise Denied(
        f"cgroups cannot be made in {hierarchy.mount_point}: {refused.strerror if refused else ''}",
        code="cgroup-denied",
        subject=hierarchy.mount_point,
    )
