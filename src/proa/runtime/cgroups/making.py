"""Make a container's cgroup in every hierarchy, and find it again."""

from __future__ import annotations

import errno
import os

from proa.errors import Conflict, Denied, Invalid
from proa.runtime.cgroups import control_files
from proa.runtime.cgroups.cgroup import Cgroup, Stats
from proa.runtime.cgroups.hierarchy import Hierarchy, hierarchies
from proa.runtime.cgroups.resources import parse_resources
from proa.runtime.shapes import ALPHANUMERIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from proa.runtime.cgroups.spare import Spare
    from proa.runtime.cgroups.version1 import CgroupV1
    from proa.runtime.cgroups.version2 import CgroupV2

__all__ = [
    "Cgroup",
    "Stats",
    "create",
    "hierarchies",
    "in_directories",
    "open_existing",
    "rehearse",
]

_NAME = ALPHANUMERIC | frozenset("_.:@-")


def create(
    path: str, resources: Mapping[str, Any] | None = None, *, adopt: bool = False, spare: Spare | None = None
) -> Cgroup:
    """Make the cgroup `path` (such as /proa/<container id>) in every hierarchy, with OCI `linux.resources` applied.

    It goes below the root of each hierarchy, or where that may not be written to what was given to us. Device
    rules are always set, the default ones when none are given. On any error nothing is left behind. Raises Invalid,
    Conflict (it exists), Unsupported (a limit without its controller), Denied, Exhausted.

    adopt: obey a caller who decides where: any path will do, a relative one is below this process's own cgroup, and a
           cgroup that is there already is taken if there is no process in it.
    spare: what was made ahead, and is used up.
    """
    wanted = parse_resources(resources)
    if not adopt:
        _check(path)
    elif not _possible(path.removeprefix("/").split("/")):
        raise Invalid(f"`{path}` is not a cgroup path", code="invalid-path", subject=path)
    rules = wanted.device_rules()
    made = spare.become(path) if spare is not None else {}
    has_rules = spare is not None and bool(made) and spare.rules == rules
    try:
        for hierarchy in hierarchies() if not made else ():
            if adopt and (found := _adopt(hierarchy, path)):
                made[hierarchy.name] = found
            else:
                made[hierarchy.name] = _make(hierarchy, path)
        cgroup = in_directories(made)
        if not has_rules:
            cgroup.set_devices(rules)
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
        directory = hierarchy.mount_point + path
        if not os.path.isdir(directory):  # only now, as it takes a moment to say where else it may be
            directory = next((base + path for base in hierarchy.bases[1:] if os.path.isdir(base + path)), "")
        if directory:
            found[hierarchy.name] = directory
    return in_directories(found) if found else None


def _possible(parts: list[str]) -> bool:
    """Whether these can be directories, one in the other."""
    return len(parts) <= 32 and all(
        0 < len(part) <= 255 and part not in (".", "..") and {"\0", "\n"}.isdisjoint(part) for part in parts
    )


def _check(path: str) -> None:
    first, *parts = path.split("/")
    plain = all(len(part) <= 200 and _NAME.issuperset(part) for part in parts)
    if first or not plain or not 2 <= len(parts) <= 8 or not _possible(parts):
        raise Invalid(f"`{path}` is not a cgroup path such as /proa/<id>", code="invalid-path", subject=path)


def in_directories(directories: Mapping[str, str]) -> CgroupV1 | CgroupV2:
    """The cgroup whose directories by hierarchy are known (`Cgroup.directories`)."""
    # Only what this machine has: the code of the other is not needed at all.
    if list(directories) == [""]:
        from proa.runtime.cgroups.version2 import CgroupV2

        return CgroupV2(directories[""])
    from proa.runtime.cgroups.version1 import CgroupV1

    return CgroupV1(directories)


def _adopt(hierarchy: Hierarchy, path: str) -> str | None:
    base = hierarchy.mount_point if path.startswith("/") else hierarchy.own
    directory = f"{base}/{path.removeprefix('/')}"
    if not os.path.isdir(directory):
        return None
    if control_files.pids(directory):
        text = f"cgroup {path} has processes in it already"
        raise Conflict(text, code="cgroup-exists", subject=path, hint="another container has this cgroup")
    return directory


def _make(hierarchy: Hierarchy, path: str) -> str:
    refused: OSError | None = None
    for base in hierarchy.bases if path.startswith("/") else (hierarchy.own,):
        try:
            directory = control_files.make(base, "/" + path.removeprefix("/"))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            refused = error
            continue
        if not hierarchy.name:
            from proa.runtime.cgroups.version2 import enable_controllers

            enable_controllers(base, "/" + path.removeprefix("/"))
        return directory
    raise Denied(
        f"cgroups cannot be made in {hierarchy.mount_point}: {refused.strerror if refused else ''}",
        code="cgroup-denied",
        subject=hierarchy.mount_point,
    )
