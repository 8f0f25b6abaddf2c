"""Volumes: named directories that outlive containers.

volumes/<name>/volume.json   driver, labels, options, created, anonymous or not
volumes/<name>/data          what containers see
"""

from __future__ import annotations

import builtins
import re
import secrets
import threading
from pathlib import Path

import msgspec

from proa.engine.clock import now
from proa.engine.events import Events
from proa.errors import Conflict, Invalid, NotFound, Unsupported
from proa.storage import read_record, write_record
from proa.storage.trash import Trash

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")


class Volume(msgspec.Struct, kw_only=True):
    """One volume's record."""

    name: str
    created: str
    mountpoint: str
    driver: str = "local"
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False


class Volumes:
    """Create, find and remove volumes. `users` says which containers hold one."""

    def __init__(self, directory: Path, trash: Trash, events: Events) -> None:
        self.directory = directory
        self._trash = trash
        self._events = events
        self._lock = threading.Lock()
        self._users: dict[str, set[str]] = {}

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or return the one of that name. Raises Invalid, Unsupported."""
        if driver not in ("", "local"):
            raise NotFound(
                f'error looking up volume plugin {driver}: plugin "{driver}" not found', code="driver-not-found"
            )
        if options:
            raise Unsupported(f"options of the local volume driver are not supported: {', '.join(sorted(options))}")
        anonymous = not name
        name = name or secrets.token_hex(32)
        if _NAME.fullmatch(name) is None:
            raise Invalid(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path',
                code="name-invalid",
            )
        path = self.directory / name
        with self._lock:
            if (path / "volume.json").exists():
                return self.get(name)
            (path / "data").mkdir(mode=0o755, parents=True, exist_ok=True)
            (path / "data").chmod(0o755)  # the engine's umask is 077; a volume belongs to the container's users
            volume = Volume(
                name=name, created=now(), mountpoint=str(path / "data"), labels=labels or {}, anonymous=anonymous
            )
            write_record(path / "volume.json", volume)
        self._events.publish("volume", "create", name, {"driver": "local"})
        return volume

    def get(self, name: str) -> Volume:
        """The record. Raises NotFound."""
        if _NAME.fullmatch(name) is None:
            raise NotFound(f"get {name}: no such volume", code="volume-not-found", subject=name)
        try:
            return read_record(self.directory / name / "volume.json", Volume)
        except NotFound:
            raise NotFound(f"get {name}: no such volume", code="volume-not-found", subject=name) from None

    def list(self) -> builtins.list[Volume]:
        """All volumes by name."""
        return [self.get(p.name) for p in sorted(self.directory.iterdir()) if (p / "volume.json").exists()]

    def hold(self, name: str, container: str) -> None:
        """Note that a container uses the volume."""
        with self._lock:
            self._users.setdefault(name, set()).add(container)

    def release(self, name: str, container: str) -> None:
        """Note that a container no longer does."""
        with self._lock:
            self._users.get(name, set()).discard(container)

    def users(self, name: str) -> builtins.list[str]:
        """Ids of the containers that use the volume."""
        with self._lock:
            return sorted(self._users.get(name, ()))

    def held_by(self, container: str) -> builtins.list[Volume]:
        """The volumes a container uses."""
        with self._lock:
            names = sorted(name for name, users in self._users.items() if container in users)
        return [self.get(name) for name in names]

    def remove(self, name: str, *, force: bool = False) -> None:
        """Delete a volume and its data. Raises NotFound (unless forced), Conflict when in use."""
        try:
            self.get(name)
        except NotFound:
            if force:
                return
            raise
        if users := self.users(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]", code="volume-in-use")
        self._trash.discard(self.directory / name)
        self._events.publish("volume", "destroy", name, {"driver": "local"})

    def prune(self, *, all: bool = False) -> builtins.list[str]:  # noqa: A002
        """Remove unused anonymous volumes, or all unused ones; returns their names."""
        gone = []
        for volume in self.list():
            if (all or volume.anonymous) and not self.users(volume.name):
                self.remove(volume.name)
                gone.append(volume.name)
        return gone
