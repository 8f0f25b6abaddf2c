"""The volumes of one engine: make, find, fill, copy, remove."""

from __future__ import annotations

import builtins
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from proa.engine.clock import now
from proa.engine.events import Events
from proa.engine.volumes.contents import Contents, is_empty
from proa.engine.volumes.filesystems import DISK, FileSystems, make_disk
from proa.engine.volumes.holders import Holders
from proa.engine.volumes.options import Backing, parse_options
from proa.engine.volumes.records import Owner, Volume
from proa.errors import Conflict, Corrupt, Invalid, NotFound
from proa.storage import Storage, read_record, write_record
from proa.storage.disk_usage import disk_usage
from proa.storage.locks import KeyedLocks
from proa.storage.records import fsync_directory

RECORD = "volume.json"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")


class Volumes:
    """The collection. `holders` knows which containers have a volume."""

    def __init__(self, directory: Path, storage: Storage, events: Events) -> None:
        self.directory = directory
        self.holders = Holders()
        self._file_systems = FileSystems(directory)
        self._contents = Contents(storage)
        self._trash = storage.trash
        self._events = events
        self._names = KeyedLocks()

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
        owner: Owner | None = None,
        holder: str = "",
        fill: Callable[[Path], None] | None = None,
    ) -> Volume:
        """Make a volume, or return the one of that name.

        owner: what an anonymous volume is made for. holder: a container that holds it from this moment on. fill: gives
        a new one its first contents; there is no volume before it has them.
        Raises Invalid, NotFound for an unknown driver, Conflict when it exists with other options, Exhausted.
        """
        if driver not in ("", "local"):
            raise NotFound(
                f'error looking up volume plugin {driver}: plugin "{driver}" not found', code="driver-not-found"
            )
        anonymous = not name
        name = name or secrets.token_hex(32)
        if _NAME.fullmatch(name) is None:
            raise Invalid(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path',
                code="name-invalid",
            )
        backing = parse_options(options or {})
        path = self.directory / name
        with self._names.hold(name):
            if holder:
                self.holders.hold(name, holder)
            if (path / RECORD).exists():
                return _with_options(self.get(name), options)
            self._trash.discard(path)  # of a create that was interrupted
            volume = Volume(
                name=name,
                created=now(),
                mountpoint=str(path / "data"),
                labels=labels or {},
                options=options or {},
                anonymous=anonymous,
                owner=owner,
            )
            try:
                self._make(path, backing, volume)
                if fill is not None:
                    with self._file_systems.at_hand(volume) as data:
                        fill(data)
                write_record(path / RECORD, volume)
                fsync_directory(self.directory)
            except BaseException:
                self._trash.discard(path)
                raise
        self._events.publish("volume", "create", name, {"driver": "local"})
        return volume

    def _make(self, path: Path, backing: Backing, volume: Volume) -> None:
        data = path / "data"
        # The engine's umask is 077: a volume belongs to the container's users, also to those of a user namespace.
        for directory, mode in ((path, 0o711), (data, 0o755)):
            directory.mkdir()
            directory.chmod(mode)
        if backing.size_bytes:
            make_disk(path / DISK, backing.size_bytes)
        if backing.fstype:
            return
        with self._file_systems.at_hand(volume):
            if backing.uid is not None or backing.gid is not None:
                os.chown(data, backing.uid or 0, backing.gid or 0)
            data.chmod(0o755 if backing.mode is None else backing.mode)

    def get(self, name: str) -> Volume:
        """The record. Raises NotFound."""
        if _NAME.fullmatch(name) is None:
            raise NotFound(f"get {name}: no such volume", code="volume-not-found", subject=name)
        try:
            volume = read_record(self.directory / name / RECORD, Volume)
        except NotFound:
            raise NotFound(f"get {name}: no such volume", code="volume-not-found", subject=name) from None
        volume.mountpoint = str(self.directory / name / "data")  # the root may have been moved
        return volume

    def list(self) -> builtins.list[Volume]:
        """All volumes by name, without those whose record is damaged: `damaged` names them."""
        return self._read()[0]

    def damaged(self) -> builtins.list[str]:
        """What is wrong with the records that cannot be read; their data stays where it is."""
        return self._read()[1]

    def _read(self) -> tuple[builtins.list[Volume], builtins.list[str]]:
        volumes: builtins.list[Volume] = []
        damaged: builtins.list[str] = []
        for path in sorted(self.directory.iterdir()):
            try:
                volumes.append(self.get(path.name))
            except NotFound:
                pass  # being made or removed
            except Corrupt as error:
                damaged.append(error.message)
        return volumes, damaged

    def users(self, name: str) -> builtins.list[str]:
        """Ids of the containers that have the volume."""
        return self.holders.users(name)

    def size_bytes(self, volume: Volume) -> int:
        """What the volume takes up on the disk of the data root; -1 for one that lies elsewhere."""
        backing = parse_options(volume.options)
        if backing.fstype:
            return -1
        if backing.size_bytes:
            return (self.directory / volume.name / DISK).stat().st_blocks * 512
        return disk_usage(volume.mountpoint).size_bytes

    def remove(self, name: str, *, force: bool = False) -> None:
        """Delete a volume and its data. Raises NotFound and Corrupt (unless forced), Conflict when in use."""
        try:
            self.get(name)
        except NotFound:
            if force:
                return
            raise
        except Corrupt:
            if not force:
                raise
        with self._names.hold(name), self.holders.removing(name):
            self._file_systems.sweep(name)
            self._trash.discard(self.directory / name)
        self._events.publish("volume", "destroy", name, {"driver": "local"})

    # -- containers ------------------------------------------------------------------------------------------------

    def join(self, container: str) -> None:
        """A container is about to start: make its volumes' data reachable. Raises what mounting them met."""
        try:
            for name in self.holders.held_by(container):
                self.holders.begin(name, container)
                self._file_systems.use(self.get(name), container)
        except BaseException:
            self.leave(container)
            raise

    def leave(self, container: str) -> None:
        """The container no longer runs."""
        for name in self.holders.held_by(container):
            self._file_systems.leave(name, container)
            self.holders.end(name, container)

    @contextmanager
    def reachable(self, container: str) -> Iterator[None]:
        """The data of a container's volumes, for the engine's work with a container that does not run."""
        with ExitStack() as stack:
            for name in self.holders.held_by(container):
                stack.enter_context(self._file_systems.at_hand(self.get(name)))
            yield

    def fill(self, volume: Volume, layers: builtins.list[Path], path: str) -> bool:
        """Give a volume that is empty, and with which nothing runs, what an image has at `path`; False if not done."""
        if parse_options(volume.options).fstype:
            return False
        try:
            with self.holders.changing(volume.name), self._file_systems.at_hand(volume) as data:
                return is_empty(data) and self._contents.copy(layers, path, data)
        except Conflict as error:
            if error.code != "volume-in-use":
                raise
            return False

    def drop(self, container: str, *, anonymous: bool) -> None:
        """A container is removed: let go of its volumes, and remove the anonymous ones that nobody else has."""
        for name in self.holders.release(container):
            try:
                if anonymous and self.get(name).anonymous and not self.users(name):
                    self.remove(name, force=True)
            except (NotFound, Conflict, Corrupt):
                pass

    # -- contents --------------------------------------------------------------------------------------------------

    def export(self, name: str, sink: BinaryIO) -> None:
        """Write what is in a volume as a tar archive. Raises NotFound, Conflict when a file changes meanwhile."""
        with self._file_systems.at_hand(self.get(name)) as data:
            self._contents.write(data, sink)

    def load(self, name: str, source: BinaryIO, *, replace: bool = False) -> Volume:
        """Put a tar archive, compressed or not, into a volume, which is made if need be.

        replace: instead of what is in it. Raises Conflict when it is not empty, or something runs with it, and what is
        wrong with the archive; then the volume is as it was.
        """
        filled = False

        def first(data: Path) -> None:
            nonlocal filled
            self._contents.replace(data, source)
            filled = True

        volume = self.create(name, fill=first)
        if filled:
            return volume
        with self.holders.changing(name), self._file_systems.at_hand(volume) as data:
            if not (replace or is_empty(data)):
                raise Conflict(
                    f"volume {name} is not empty",
                    code="volume-not-empty",
                    subject=name,
                    hint="import into a new volume, or replace its contents with --replace",
                )
            self._contents.replace(data, source)
        return volume

    def clone(self, origin: str, name: str, *, labels: dict[str, str] | None = None) -> Volume:
        """A new volume with what is in another, and its options. Raises NotFound, Conflict, Exhausted."""
        source = self.get(origin)
        if (self.directory / name / RECORD).exists():
            raise Conflict(f"volume {name} exists", code="volume-exists", subject=name)
        if not name:
            raise Invalid("a clone needs a name", code="name-invalid")
        with self._file_systems.at_hand(source) as data:
            return self.create(
                name,
                options=dict(source.options),
                labels={**source.labels, **(labels or {})},
                fill=lambda target: self._contents.clone(data, target),
            )

    def reconcile(self) -> None:
        """After containers have been adopted: unmount and remove what a killed engine left half done."""
        for path in self.directory.iterdir():
            if not (path / RECORD).exists():
                self._trash.discard(path)
                continue
            self._file_systems.sweep(path.name)
            self._contents.tidy(path / "data")


def _with_options(volume: Volume, options: dict[str, str] | None) -> Volume:
    if options and options != volume.options:
        raise Conflict(
            f"volume {volume.name} exists with other options",
            code="volume-options",
            subject=volume.name,
            hint="remove it first, or use another name",
        )
    return volume
