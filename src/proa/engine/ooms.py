"""Tell at once when a container's processes are killed for want of memory, also when the container lives on.

Version 1 of cgroups signals an eventfd(2) that is registered with the group (kernel: admin-guide/cgroup-v1/memory,
section 9), version 2 changes the file memory.events, which inotify(7) reports.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from proa.engine.catalog import Entry
from proa.engine.leftovers import cgroup_path
from proa.linux import inotify
from proa.runtime import cgroups

if TYPE_CHECKING:
    from proa.engine.engine import Engine

# Version 1 tells that memory has run out, and kills then.
SETTLE_S = 0.05
_V1, _V2 = "memory.oom_control", "memory.events"


class _Group:
    """The memory group of one container, and the descriptor that becomes readable when it runs out."""

    __slots__ = ("directory", "fd", "kills", "version2")

    def __init__(self, directory: str, fd: int, *, version2: bool) -> None:
        self.directory = directory
        self.fd = fd
        self.version2 = version2
        self.kills = self.count()

    def count(self) -> int:
        """Processes that were killed; 0 when the group is gone."""
        try:
            with open(f"{self.directory}/{_V2 if self.version2 else _V1}", encoding="ascii") as file:
                words = [line.split() for line in file]
        except OSError:
            return 0
        return next((int(w[1]) for w in words if len(w) == 2 and w[0] == "oom_kill"), 0)


class Ooms:
    """The containers of one engine that have a memory limit and run."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._groups: dict[str, _Group] = {}
        self._lock = threading.Lock()  # no descriptor is closed while it is read

    def watch(self, entry: Entry, *, started: bool = False) -> None:
        """Watch a running container, if it can run out of memory by itself; the caller holds its lock.

        started: just now, so that nobody has told of a kill that it has had already.
        """
        record = entry.record
        if record.host.memory <= 0 or record.id in self._groups:
            return
        found = cgroups.open_existing(cgroup_path(self._engine.id, record.id, record.host.cgroup_parent))
        try:
            group = _open(found.directories) if found is not None else None
        except OSError:
            return  # it has ended already, or this kernel tells nobody: the exit record still says it
        if group is None:
            return
        self._groups[record.id] = group
        if group.kills and started:
            group.kills = 0  # it was killed before anybody looked
            self._engine.agenda.later(SETTLE_S, partial(self._tell, entry, group))
        self._engine.agenda.watch(group.fd, partial(self._readable, entry, group))

    def forget(self, entry: Entry) -> bool:
        """Watch it no more: it has ended. True when its last kill has been told already."""
        group = self._groups.pop(entry.record.id, None)
        if group is None:
            return False
        self._engine.agenda.forget(group.fd)
        with self._lock:
            os.close(group.fd)
            group.fd = -1
        return group.kills > 0

    def close(self) -> None:
        """Close every descriptor, once the agenda has ended."""
        while self._groups:
            os.close(self._groups.popitem()[1].fd)

    def _readable(self, entry: Entry, group: _Group) -> None:
        """On the agenda's thread: must not block."""
        with self._lock:
            if group.fd < 0:
                return
            os.read(group.fd, 4096)
        self._engine.agenda.later(SETTLE_S, partial(self._tell, entry, group))

    def _tell(self, entry: Entry, group: _Group) -> None:
        with self._lock:
            kills = group.count() if group.fd >= 0 else 0
            more, group.kills = kills > group.kills, max(kills, group.kills)
        if more:
            entry.record.state.oom_killed = True
            self._engine.containers.announce(entry, "oom")


def _open(directories: Mapping[str, str]) -> _Group | None:
    """The group's descriptor. Raises OSError."""
    if "memory" in directories:
        directory = directories["memory"]
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(f"{directory}/{_V1}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                with open(f"{directory}/cgroup.event_control", "w", encoding="ascii") as file:
                    file.write(f"{event} {control}")
            finally:
                os.close(control)
        except BaseException:
            os.close(event)
            raise
        return _Group(directory, event, version2=False)
    directory = directories.get("", "")
    if not os.path.exists(f"{directory}/{_V2}"):
        return None
    fd = inotify.inotify_init()
    try:
        inotify.inotify_add_watch(fd, f"{directory}/{_V2}", inotify.IN_MODIFY)
    except BaseException:
        os.close(fd)
        raise
    return _Group(directory, fd, version2=True)
