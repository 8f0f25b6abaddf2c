"""Copies: files out of containers and into them, and whole file systems out, all as tar archives.

A process that has joined the container's mount namespace does it (`proa.storage.roots`): of a running container its
own, of another one that of a process which holds the same mounts for the time of the copy (`proa.monitor.mounts`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from proa.engine import exits
from proa.engine.catalog import Entry
from proa.engine.mount_sources import image_mounts
from proa.engine.specgen import files_config
from proa.engine.types import PathStat
from proa.errors import Conflict, NotFound, ProaError
from proa.linux import process
from proa.storage import lower_dirs, upper_dir

if TYPE_CHECKING:
    from proa.engine.engine import Engine
    from proa.storage.layers.archive import Sink


class Copies:
    """Look at, read and write the files of containers, running or not. All methods take a name, an id or a prefix."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def stat(self, container: str, path: str) -> PathStat:
        """What is at a path; of a link at its end, the link. Raises NotFound, Invalid."""
        from proa.storage.roots import visits

        with self._inside(container, path) as pidfd:
            return msgspec.convert(visits.look(self._engine.storage.workers, pidfd, path), PathStat)

    def read(self, container: str, path: str, sink: Sink) -> None:
        """Write an archive of a file or tree; its members' names begin with the last part of the path.

        Raises NotFound, Invalid, Conflict when a file changes meanwhile.
        """
        from proa.storage.roots import visits

        with self._inside(container, path) as pidfd:
            visits.pack(self._engine.storage.workers, pidfd, path, sink)
        self._announce(container, "archive-path")

    def write(
        self, container: str, path: str, source: BinaryIO, *, keep_kinds: bool = False, own: bool = False
    ) -> None:
        """Place the members of an archive, compressed or not, in the directory at a path.

        keep_kinds: refuse to replace a directory by something else or the other way round; own: the files shall be the
        container's user's, not whose the archive says. Raises NotFound, Invalid, Corrupt, Denied, Exhausted.
        """
        from proa.storage.roots import visits

        owner = self._engine.catalog.find(container).record.config.user if own else ""
        with self._inside(container, path) as pidfd:
            budget = self._engine.storage.limits.layer
            workers = self._engine.storage.workers
            visits.place(workers, pidfd, path, source, budget=budget, keep_kinds=keep_kinds, owner=owner)
        self._announce(container, "extract-to-dir")

    def export(self, container: str, sink: Sink) -> None:
        """Write the container's whole file system, without what is mounted in it. Raises NotFound, Conflict."""
        from proa.storage.layers import tar_tree

        entry = self._engine.catalog.find(container)
        mounts = self._engine.storage.snapshots.mounts(f"container:{entry.record.id}")
        tar_tree([upper_dir(mounts), *lower_dirs(mounts)], sink)
        self._announce(container, "export")

    def _announce(self, container: str, action: str) -> None:
        self._engine.containers.announce(self._engine.catalog.find(container), action)

    @contextmanager
    def _inside(self, container: str, path: str) -> Iterator[int]:
        """A pidfd of a process that has the container's mounts."""
        entry = self._engine.catalog.find(container)
        try:
            pidfd = self._running(entry)
            if pidfd is not None:
                try:
                    yield pidfd
                finally:
                    os.close(pidfd)
                return
            with entry.lock:  # its files have one mount at a time
                if entry.removed or entry.record.state.running:
                    raise Conflict(f"container {entry.record.id} was started or removed meanwhile, try again")
                mounts = self._engine.storage.snapshots.mounts(f"container:{entry.record.id}")
                rootfs = [msgspec.structs.asdict(m) for m in mounts]
                config = files_config(entry.record, image_mounts(self._engine, entry.record))
                with (
                    self._engine.volumes.reachable(entry.record.id),
                    self._engine.nursery.hold_mounts(config, rootfs) as pidfd,
                ):
                    yield pidfd
        except NotFound as error:
            if error.code != "path-not-found":
                raise
            raise NotFound(
                f"Could not find the file {path} in container {container}", code="path-not-found", subject=path
            ) from None
        except ProaError as error:
            if error.fields.get("errno") == 3:  # ESRCH
                raise Conflict(f"container {entry.record.id} ended meanwhile, try again", code="not-running") from error
            raise

    def _running(self, entry: Entry) -> int | None:
        """A pidfd of the container's first process; None when it does not run."""
        if not entry.record.state.running:
            return None
        state = exits.monitor_state(self._engine.catalog.path(entry)) or {}
        pid = int(state.get("pid", 0)) or entry.record.state.pid
        try:
            pidfd = os.pidfd_open(pid)
        except (ProcessLookupError, ValueError):
            return None
        try:
            if process.start_time(pid) == state.get("start_time"):
                return pidfd
        except OSError:
            pass  # it has ended
        os.close(pidfd)
        return None
