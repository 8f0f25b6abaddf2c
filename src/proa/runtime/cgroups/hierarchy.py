"""Which cgroup hierarchies this machine has, and where a container's directories go in them (cgroups(7)).

    version 2   one hierarchy:            /sys/fs/cgroup/proa/<id>
    version 1   one per controller set:   /sys/fs/cgroup/memory/proa/<id>, /sys/fs/cgroup/pids/proa/<id>, …

In the hybrid layout the version 2 hierarchy has no controllers, and the version 1 ones are used.
"""

from __future__ import annotations

import os

from proa.errors import Unsupported
from proa.linux.once import once
from proa.linux.tuples import NamedTuple
from proa.runtime.cgroups.control_files import remove_parent


class Hierarchy(NamedTuple):
    """One mounted hierarchy.

    name:        as in /proc/self/cgroup: controllers joined by commas, `name=…`, or empty for version 2.
    mount_point: where it is mounted.
    own:         directory of this process's own cgroup in it.
    """

    name: str
    mount_point: str
    own: str

    @property
    def controllers(self) -> tuple[str, ...]:
        """Controllers of a version 1 hierarchy."""
        return () if not self.name or "=" in self.name else tuple(self.name.split(","))

    @property
    def bases(self) -> tuple[str, ...]:
        """Where to make cgroups, best first: the root, or the highest directory above our own that was given to us.

        Only there, in version 2, are processes above no obstacle to controllers (cgroup-v2, "Delegation").
        """
        given = self.own
        parent = os.path.dirname(given)
        while parent.startswith(self.mount_point + "/") and os.access(f"{parent}/cgroup.procs", os.W_OK):
            if not os.access(parent, os.W_OK):
                break
            given, parent = parent, os.path.dirname(parent)
        return tuple(dict.fromkeys((self.mount_point, given)))


@once
def hierarchies() -> tuple[Hierarchy, ...]:
    """The hierarchies to use: all of version 1 with controllers, else the one of version 2. Raises Unsupported."""
    with open("/proc/self/mountinfo", "rb") as mountinfo, open("/proc/self/cgroup", "rb") as memberships:
        found = parse_hierarchies(mountinfo.read(), memberships.read(), systemd=os.path.isdir("/run/systemd/system"))
    if not found:
        raise Unsupported(
            "no cgroup hierarchy is mounted", code="no-cgroups", hint="mount -t cgroup2 none /sys/fs/cgroup"
        )
    return found


def remove_empty_parents() -> None:
    """Remove the directory `proa` of the hierarchies in use, where it is empty. Raises Unsupported without any."""
    for hierarchy in hierarchies():
        for base in hierarchy.bases:
            remove_parent(base)


def remove_unused_parents() -> None:
    """Remove the directory `proa` of hierarchies that proa does not use, where it is empty: another runtime made it."""
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = _mounts(file.read())
    for _kind, _options, _root, mount_point in mounts:
        remove_parent(mount_point)


def parse_hierarchies(mountinfo: bytes, memberships: bytes, *, systemd: bool) -> tuple[Hierarchy, ...]:
    """Pure part of `hierarchies`. `systemd`: whether its named hierarchy matters to anybody."""
    own_paths: dict[str, str] = {}
    for line in memberships.decode(errors="surrogateescape").splitlines():
        _number, name, path = line.split(":", 2)
        own_paths[name] = path
    found: dict[str, Hierarchy] = {}
    for kind, options, root, mount_point in _mounts(mountinfo):
        name = "" if kind == b"cgroup2" else _match(options, own_paths)
        if name in found or name not in own_paths:
            continue
        own = own_paths[name]
        if root != "/":
            own = own.removeprefix(root) if own.startswith(root) else "/"
        found[name] = Hierarchy(name, mount_point, mount_point + own.rstrip("/"))
    version1 = [h for h in found.values() if h.controllers or (h.name == "name=systemd" and systemd)]
    if any(h.controllers for h in version1):
        return tuple(sorted(version1))
    return (found[""],) if "" in found else ()


def _mounts(mountinfo: bytes) -> list[tuple[bytes, list[str], str, str]]:
    """Of each mount of cgroups: kind (`cgroup` or `cgroup2`), options of the hierarchy, its root, where it is."""
    found = []
    for raw in mountinfo.splitlines():
        fields = raw.split(b" ")
        dash = fields.index(b"-", 6)
        if fields[dash + 1] in (b"cgroup", b"cgroup2"):
            options = fields[dash + 3].decode().split(",")
            found.append((fields[dash + 1], options, _unescape(fields[3]), _unescape(fields[4])))
    return found


def _match(options: list[str], own_paths: dict[str, str]) -> str:
    """The name in /proc/self/cgroup of the version 1 hierarchy mounted with `options`, or `?`."""
    for name in own_paths:
        if name and all(part in options for part in name.split(",")):
            return name
    return "?"


def _unescape(field: bytes) -> str:
    first, *rest = field.split(b"\\")  # the kernel escapes blanks and backslashes, always with three octal digits
    return os.fsdecode(first + b"".join([bytes([int(part[:3], 8)]) + part[3:] for part in rest]))
