"""The engine: one data root, opened by one process, as the nouns users know.

    engine.containers  create, find, list, rename, remove      engine.images     list, tag, remove, commit
    engine.lifecycle   start, stop, kill, pause, wait          engine.transfers  pull, push, load, save, import
    engine.streams     attach, resize, logs                    engine.networks   the networks there are
    engine.execs       additional processes                    engine.volumes    named directories that stay
    engine.events      what happened                           engine.system     facts and usage
    engine.restarts    what is started again                   engine.health     what healthchecks find
    engine.updates     limits and policies of what runs        engine.agenda     what is done later
    engine.remote_images  look at, copy and delete what registries have
    engine.integrity   check and repair of the root            engine.artifacts  files of any kind under names
    engine.manifest_lists  indexes put together here           engine.image_mounts  images that people look into
    engine.copies      files out of and into containers

Everything is synchronous and thread-safe; locks are per container, never held over a transfer.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from pathlib import Path

from proa.engine.agenda import Agenda
from proa.engine.artifacts import Artifacts
from proa.engine.catalog import Catalog
from proa.engine.commits import Commits
from proa.engine.config import Config, load_config
from proa.engine.containers import Containers
from proa.engine.copies import Copies
from proa.engine.endpoints import Endpoints
from proa.engine.events import Events
from proa.engine.execs import Execs
from proa.engine.health import HealthChecks
from proa.engine.image_mounts import ImageMounts
from proa.engine.images import Images
from proa.engine.integrity import Integrity
from proa.engine.lifecycle import Lifecycle
from proa.engine.manifest_lists import ManifestLists
from proa.engine.networks import Networks
from proa.engine.ooms import Ooms
from proa.engine.reconcile import reconcile
from proa.engine.relay import Relay
from proa.engine.remote_images import RemoteImages
from proa.engine.resolver import Resolver
from proa.engine.restarts import Restarts
from proa.engine.rootless import abilities, keeper_of_doors
from proa.engine.runs import Runs
from proa.engine.secrets import Secrets
from proa.engine.streams import Streams
from proa.engine.system import System
from proa.engine.transfers import Transfers
from proa.engine.updates import Updates
from proa.engine.userns import UserNamespaces, check_range, own_ids
from proa.engine.volumes import Volumes
from proa.engine.watch import Watcher
from proa.errors import TimedOut, Unavailable
from proa.monitor.nursery import IdMaps, NetworkNamespace, Nursery
from proa.storage import RootLock, Storage, lock_root, make_private
from proa.storage.records import write_bytes

log = logging.getLogger(__name__)


class Engine:
    """One open data root. `open` takes the root's lock; `close` leaves containers running under their monitors."""

    def __init__(self, root: Path, run: Path, config: Config, storage: Storage, lock: RootLock) -> None:
        self.root = root
        self.run = run
        self._lock = lock
        self.storage = storage
        containers = root / "containers"
        for directory in (containers, root / "volumes", run / "monitors"):
            make_private(directory)
        self.id = _engine_id(root)
        self.config = config
        self.abilities = abilities(run, self.id)
        self.catalog = Catalog(containers)
        self.events = Events(root / "events")
        self._nursery = Nursery.start(run)
        self._nursery_lock = threading.Lock()
        self.agenda = Agenda()
        self.watcher = Watcher()
        self.runs = Runs()
        space = check_range(self.config.userns_range)
        self.userns = UserNamespaces(self.catalog, self.id, remap=self.config.userns_remap, space=space, own=own_ids())
        self.volumes = Volumes(root / "volumes", storage, self.events)
        self.secrets = Secrets(root / "secrets", "secret", self.events)
        self.configs = Secrets(root / "configs", "config", self.events)
        self.kept = {"secret": self.secrets, "config": self.configs}
        self.relay = Relay(run, keeper_of_doors())
        self.networks = Networks(self)
        self.resolver = Resolver(run, self.networks.find)
        self.endpoints = Endpoints(self)
        self.resolver.lost = self.endpoints.reconcile
        self.images = Images(storage, self.catalog, self.events, self.config.short_names)
        self.transfers = Transfers(self)
        self.remote_images = RemoteImages(self)
        self.streams = Streams(self.catalog, self.runs)
        self.restarts = Restarts(self)
        self.health = HealthChecks(self)
        self.ooms = Ooms(self)
        self.lifecycle = Lifecycle(self)
        self.updates = Updates(self)
        self.containers = Containers(self)
        self.commits = Commits(self)
        self.copies = Copies(self)
        self.execs = Execs(self)
        self.system = System(self)
        self.integrity = Integrity(self)
        self.manifest_lists = ManifestLists(self)
        self.artifacts = Artifacts(self)
        self.image_mounts = ImageMounts(self)

    @classmethod
    def open(cls, root: Path, run: Path, config: Config | None = None) -> Engine:
        """Open `root`, making it if need be, adopt what runs, and clean up what a crash left.

        config: default what the configuration file says
        Raises Conflict when another engine holds the root.
        """
        os.umask(0o077)
        lock = lock_root(root)
        try:
            config = config or load_config()
            engine = cls(root, run, config, Storage.open(root, config.limits), lock)
        except BaseException:
            lock.close()
            raise
        try:
            reconcile(engine)
            engine.restarts.resume()
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def nursery(self) -> Nursery:
        """What starts monitors; another one when somebody killed it."""
        with self._nursery_lock:
            if not self._nursery.alive():
                log.warning("the nursery has ended: starting another one")
                self._nursery.close()
                self._nursery = Nursery.start(self.run)
            return self._nursery

    def drop_nursery(self) -> None:
        """End a nursery that does not answer; the next use starts another one. Monitors go on."""
        with self._nursery_lock:
            log.warning("the nursery does not answer: ending it")
            self._nursery.kill()

    def make_netns(self, id_maps: IdMaps | None = None, *, names: bool = False, join_fd: int = -1) -> NetworkNamespace:
        """A network namespace (`Nursery.make_netns`), by another nursery when somebody killed or stopped the first."""
        try:
            return self.nursery.make_netns(id_maps, names=names, join_fd=join_fd)
        except Unavailable as error:
            log.warning("making a network namespace again: %s", error.message)
        except TimedOut:
            self.drop_nursery()
        return self.nursery.make_netns(id_maps, names=names, join_fd=join_fd)

    def socket_path(self, container: str) -> Path:
        """Where the monitor of a container listens."""
        return self.run / "monitors" / f"{container[:16]}.sock"

    @property
    def busy(self) -> bool:
        """True while a container runs or waits for its restart; the service does not end itself then."""
        return any(entry.record.state.active for entry in self.catalog)

    def close(self) -> None:
        """Let go of the root. Containers keep running; the next engine finds them."""
        self.agenda.close()
        self.ooms.close()
        self.execs.close()
        self.watcher.close()
        self._nursery.close()
        self.resolver.close()
        self.networks.close()
        self.relay.close()
        self.events.close()
        self.storage.close()
        self._lock.close()


def _engine_id(root: Path) -> str:
    """The id this root was given when it was first opened."""
    path = root / "engine-id"
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        new = secrets.token_hex(8)
        write_bytes(path, new.encode())
        return new
