"""Containers: create, find, list, rename and remove them."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from proa.engine import filters as container_filters
from proa.engine.ancestry import stands_on
from proa.engine.catalog import Entry, copy_record
from proa.engine.clock import now
from proa.engine.devices import check_devices
from proa.engine.emulation import platform_warnings
from proa.engine.images import image_id, run_config, top_chain_id
from proa.engine.leftovers import cgroup_parent
from proa.engine.log_options import check_log_config, fill_in_log
from proa.engine.merge import merge_config
from proa.engine.mount_sources import Sources, fill_volumes, hold_images, release_images
from proa.engine.mounts import resolve_mounts
from proa.engine.names import check_name, new_id, random_name
from proa.engine.namespaces import check_namespaces
from proa.engine.resources import fill_in, limit_warnings, linux_resources
from proa.engine.restarts import check_policy
from proa.engine.rootless import limits_asked
from proa.engine.runtimes import runtime_program
from proa.engine.secrets import check as check_secrets
from proa.engine.security import check_security
from proa.engine.types import Container, CreateRequest, CreateResult, HostConfig
from proa.errors import Conflict, Invalid, ProaError

if TYPE_CHECKING:
    from proa.engine.engine import Engine


class Containers:
    """The collection of containers of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._catalog = engine.catalog

    def create(self, request: CreateRequest) -> CreateResult:
        """Make a container ready to start; nothing runs yet.

        Raises NotFound for a missing image, Conflict for a busy name, Invalid for a wrong request. A failure leaves
        nothing behind; what is returned survives power loss (except auto-remove containers, which would be removed).
        """
        engine = self._engine
        image = engine.images.find(request.config.image, platform=request.platform)
        config = merge_config(request.config, run_config(image))
        host = request.host
        fill_in(host)
        linux_resources(host)
        check_security(host)
        runtime_program(host.runtime)
        check_devices(host)
        check_namespaces(host, self._catalog)
        cgroup_parent(host.cgroup_parent)
        fill_in_log(host.log_config, engine.config.default_log)
        check_log_config(host.log_config)
        check_policy(host.restart_policy, auto_remove=host.auto_remove)
        warnings = limit_warnings(host) + self._adapt(host)
        warnings += platform_warnings(image.config.platform, asked=bool(request.platform))
        name = check_name(request.name) if request.name else self._free_name()
        id = new_id()  # noqa: A001
        if host.uts_mode == "host":
            if config.hostname:
                raise Invalid("conflicting options: hostname and the UTS mode", code="hostname-and-uts")
        elif not config.hostname and host.network_mode != "host" and not host.network_mode.startswith("container:"):
            config.hostname = id[:12]
        argv = [*(config.entrypoint or []), *(config.cmd or [])]
        record = Container(
            id=id,
            name=name,
            created=now(),
            image_id=image_id(image),
            image_name=request.config.image,
            manifest=image.descriptor.digest,
            chain_id=top_chain_id(image),
            platform=str(image.config.platform),
            config=config,
            host=host,
            networks=request.networks,
            path=argv[0],
            args=argv[1:],
            labels=config.labels or {},
            directory=str(self._catalog.directory / id),
        )
        warnings += engine.endpoints.check(record)
        check_secrets(host.secrets or [], engine.kept)
        entry = self._catalog.add(record)
        try:
            with entry.lock, engine.storage.leases.hold(f"create {id[:12]}"):
                engine.userns.assign(record)
                record.mounts = resolve_mounts(config, host, Sources(engine, record, request.volume_labels))
                engine.images.unpack(image)
                hold_images(engine, record)
                fill_volumes(engine, record)
                engine.storage.snapshots.prepare(f"container:{id}", top_chain_id(image), volatile=host.auto_remove)
                self._catalog.path(entry).mkdir(mode=0o700)
                self._catalog.save(entry)
        except BaseException:
            self._undo(entry)
            raise
        self.announce(entry, "create")
        return CreateResult(id=id, warnings=warnings)

    def _adapt(self, host: HostConfig) -> builtins.list[str]:
        """Ask for no more than this engine can do; what is missing, for people."""
        able = self._engine.abilities
        out = []
        if able.no_limits and limits_asked(host):
            out.append(able.no_limits)
        if not able.connected and host.network_mode in ("", "default", "bridge"):
            host.network_mode = "none"
            out.append(next(reason for reason in able.reasons if "no network" in reason))
        return out

    def _free_name(self) -> str:
        for _ in range(20):
            if not self._catalog.name_taken(name := random_name()):
                return name
        return f"{random_name()}_{new_id()[:6]}"

    def _undo(self, entry: Entry) -> None:
        self._engine.volumes.drop(entry.record.id, anonymous=True)
        self._discard(entry)

    def _discard(self, entry: Entry) -> None:
        """Remove the container's files and snapshot, whatever of them exists, then the record."""
        path = self._catalog.path(entry)
        if path.exists():
            self._engine.storage.trash.discard(path)
        release_images(self._engine, entry.record)
        try:
            self._engine.storage.snapshots.remove(f"container:{entry.record.id}")
        except ProaError:
            pass
        self._catalog.drop(entry)

    def get(self, name_or_id: str) -> Container:
        """A copy of the record. Raises NotFound, Invalid for an ambiguous prefix."""
        return copy_record(self._catalog.find(name_or_id).record)

    def list(
        self,
        *,
        all: bool = False,  # noqa: A002
        limit: int = 0,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> builtins.list[Container]:
        """Containers, newest first: running ones, or all; those that pass every filter."""
        wanted = container_filters.compile_filters(filters or {}, self._catalog, self._stands_on)
        every = all or limit > 0 or "status" in (filters or {})
        found = [
            entry.record
            for entry in sorted(self._catalog, key=lambda e: e.record.created, reverse=True)
            if (every or entry.record.state.active) and wanted(entry.record)
        ]
        return [copy_record(record) for record in (found[:limit] if limit > 0 else found)]

    def rename(self, name_or_id: str, name: str) -> None:
        """Give a container another name. Raises NotFound, Conflict, Invalid."""
        entry = self._catalog.find(name_or_id)
        name = name.removeprefix("/")
        with entry.lock:
            old = entry.record.name
            if name == old:
                raise Invalid("Renaming a container with the same name as its current name", code="same-name")
            try:
                self._catalog.rename(entry, check_name(name))
            except Invalid as error:
                wording = error.message.replace(f"({name})", f"(/{name})")
                raise Invalid(f"Error when allocating new name: {wording}", code=error.code) from None
            except Conflict as error:
                raise Conflict(f"Error when allocating new name: {error.message}", code=error.code) from None
            self._engine.endpoints.renamed(entry)
            self._catalog.save(entry)
        self.announce(entry, "rename", oldName="/" + old)

    def remove(self, name_or_id: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container and its writable layer; a running one only by force.

        Raises NotFound, Conflict.
        """
        entry = self._catalog.find(name_or_id)
        engine = self._engine
        with entry.lock:
            if entry.removed:
                return
            record = entry.record
            status = record.state.status
            if record.state.active:
                if not force:
                    advice = "Stop the container before attempting removal or force remove"
                    if status == "paused":
                        advice = f"Unpause and then s{advice[1:]}"
                    raise Conflict(
                        f"You cannot remove a {status} container {record.id}. {advice}",
                        code="container-running",
                        subject=record.id,
                    )
                record.state.manually_stopped = True
                if not engine.restarts.cancel(entry):
                    engine.lifecycle.kill_and_wait(entry)
            self.remove_entry(entry, volumes=volumes or record.host.auto_remove)

    def remove_entry(self, entry: Entry, *, volumes: bool) -> None:
        """Remove a container that does not run; the caller holds its lock."""
        if entry.removed:
            return
        record = entry.record
        record.state.status = "removing"
        self._engine.volumes.drop(record.id, anonymous=volumes)
        self._engine.streams.forget(record.id)
        self._discard(entry)
        self.announce(entry, "destroy")
        self._engine.lifecycle.removed(entry)

    def _stands_on(self, image: str) -> Callable[[Container], bool]:
        return stands_on(self._engine.images, self._engine.storage.snapshots, image)

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[builtins.list[str], int]:
        """Remove every container that does not run; ids and bytes freed."""
        wanted = container_filters.compile_filters(filters or {}, self._catalog, self._stands_on)
        gone: builtins.list[str] = []
        freed = 0
        for entry in self._catalog:
            with entry.lock:
                if entry.removed or entry.record.state.active or not wanted(entry.record):
                    continue
                freed += self._engine.storage.snapshots.usage(f"container:{entry.record.id}").size_bytes
                self.remove_entry(entry, volumes=False)
                gone.append(entry.record.id)
        return gone, freed

    def sizes(self, name_or_id: str) -> tuple[int, int]:
        """Bytes of the writable layer, and of that plus the image."""
        record = self._catalog.find(name_or_id).record
        own = self._engine.storage.snapshots.usage(f"container:{record.id}").size_bytes
        return own, own + self._engine.images.get(record.manifest).size

    def changes(self, name_or_id: str) -> builtins.list[tuple[int, str]]:
        """Changed paths: 0 modified, 1 added, 2 deleted."""
        return self._engine.commits.changes(self._catalog.find(name_or_id))

    def attached(self, name_or_id: str) -> None:
        """Tell that a client joins a container's streams. Raises NotFound."""
        self.announce(self._catalog.find(name_or_id), "attach")

    def announce(self, entry: Entry, action: str, **attributes: str) -> None:
        """Publish an event about a container with the attributes clients expect."""
        record = entry.record
        self._engine.events.publish(
            "container",
            action,
            record.id,
            {**record.labels, "image": record.image_name, "name": record.name, **attributes},
        )
