"""A cgroup made before a container is asked for, and named when it is.

Eight directories and a dozen device rules are 0.9 ms of a start, eight renames 0.1. Of version 1 only, as version 2
knows no renaming. A spare is called by the process that has it made, its owner, so whoever finds one whose owner has
ended removes it. There may be one for each owner: two that make it at once get in each other's way, and then the start
that finds no spare makes its cgroup itself.
"""

from __future__ import annotations

import os

from proa.errors import ProaError
from proa.linux import process
from proa.linux.tuples import NamedTuple
from proa.runtime.cgroups import control_files
from proa.runtime.cgroups.device_rules import DeviceRule
from proa.runtime.cgroups.hierarchy import hierarchies, remove_empty_parents
from proa.runtime.cgroups.resources import parse_resources
from proa.runtime.cgroups.version1 import CgroupV1

__all__ = ["Spare", "make_spare", "remove_spares"]

_PARENT = f"/{control_files.PARENT}"
_PREFIX = "spare-"


class Spare(NamedTuple):
    """Its base directory by hierarchy, its name below that, and the device rules that it has."""

    bases: dict[str, str]
    path: str
    rules: list[DeviceRule]

    def become(self, path: str) -> dict[str, str]:
        """Name it `path`; its directory by hierarchy. None of them, and it is gone, when it cannot be called so."""
        named: dict[str, str] = {}
        if os.path.dirname(path) != _PARENT:
            self.remove()
            return named
        try:
            for name, base in self.bases.items():
                os.rename(base + self.path, base + path)
                named[name] = base + path
        except OSError:  # it is taken, or somebody removed the spare
            for directory in named.values():
                _remove(directory)
            self.remove()
            return {}
        return named

    def remove(self) -> None:
        """Remove what is left of it."""
        for base in self.bases.values():
            _remove(base + self.path)


def make_spare(owner: int) -> Spare | None:
    """Make the owner's spare, or find it; None where there can be none."""
    try:
        path = f"{_PARENT}/{_PREFIX}{owner}-{process.start_time(owner)}"
        found = hierarchies()
        if not all(hierarchy.controllers for hierarchy in found):
            return None
        spare = Spare({}, path, parse_resources(None).device_rules())
    except (OSError, ProaError):
        return None
    try:
        for hierarchy in found:
            base = hierarchy.bases[0]
            control_files.make(base, path, may_exist=True)  # not used up by the last who had it, or who was killed
            spare.bases[hierarchy.name] = base
        CgroupV1({name: base + path for name, base in spare.bases.items()}).set_devices(spare.rules)
    except (OSError, ProaError):
        spare.remove()
        return None
    return spare


def remove_spares(owner: int = 0) -> None:
    """Remove the spares of `owner` and of all whose owner has ended, then empty parents."""
    try:
        found = hierarchies()
    except ProaError:
        return
    for hierarchy in found:
        for base in hierarchy.bases:
            try:
                names = os.listdir(base + _PARENT)
            except OSError:
                continue
            for name in names:
                if name.startswith(_PREFIX) and not _is_owned(name.removeprefix(_PREFIX), owner):
                    _remove(f"{base}{_PARENT}/{name}")
    remove_empty_parents()


def _is_owned(identity: str, except_for: int) -> bool:
    pid, _, started = identity.partition("-")
    try:
        return int(pid) != except_for and process.start_time(int(pid)) == int(started)
    except (OSError, ValueError):
        return False


def _remove(directory: str) -> None:
    try:
        control_files.remove(directory, 1.0, keep_parent=True)
    except (OSError, ProaError):
        pass  # somebody else does, or it is no spare
