"""Reconcile: make the records agree with what is there, at every start; nothing depends on a clean exit.

The files and the kernel are read, never the memory of the engine before: it may have been killed at any instruction.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from proa.engine import exits
from proa.engine.adoption import Joined, join_monitors
from proa.engine.catalog import Entry
from proa.engine.leftovers import end_stray_cgroups
from proa.engine.types import State

if TYPE_CHECKING:
    from proa.engine.engine import Engine

log = logging.getLogger(__name__)


def reconcile(engine: Engine) -> None:
    """Adopt running containers, take over exits, and remove what an interrupted create or remove left."""
    for leftover in engine.catalog.load():
        log.warning("removing the leftover of an interrupted create or remove: %s", leftover)
        engine.storage.trash.discard(engine.catalog.directory / leftover)
    for damaged in engine.catalog.damaged:
        log.warning("the record of container %s is damaged: it is set aside, see `proa system check`", damaged)
    known = {entry.record.id for entry in engine.catalog} | set(engine.catalog.damaged)
    for snapshot in list(engine.storage.snapshots.walk()):
        owner = snapshot.key.removeprefix("container:").partition(":")[0]
        if snapshot.kind != "committed" and snapshot.key.startswith("container:") and owner not in known:
            engine.storage.snapshots.remove(snapshot.key)
    monitors = join_monitors(engine, [entry.record.id for entry in engine.catalog])
    for entry in engine.catalog:
        for mount in entry.record.mounts:
            if mount.type == "volume":
                engine.volumes.holders.hold(mount.name, entry.record.id)
        with entry.lock:
            _reconcile_container(engine, entry, monitors.get(entry.record.id))
    running = {e.record.id for e in engine.catalog if e.record.state.running}
    parents = {e.record.host.cgroup_parent for e in engine.catalog}
    end_stray_cgroups(engine.id, running | set(engine.catalog.damaged), parents)
    engine.networks.reconcile()
    engine.endpoints.reconcile()
    engine.volumes.reconcile()
    _remove_stale_sockets(engine)


def _reconcile_container(engine: Engine, entry: Entry, joined: Joined | None) -> None:
    record = entry.record
    directory = engine.catalog.path(entry)
    if record.state.status == "removing":
        engine.containers.remove_entry(entry, volumes=record.host.auto_remove)
        return
    if joined is not None:
        if not record.state.running:
            # Killed between the start and the record of it.
            state = exits.monitor_state(directory) or {}
            record.state = State(
                status="running", pid=int(state.get("pid", 0)), started_at=str(state.get("started_at", ""))
            )
        engine.lifecycle.adopt(entry, joined)
        engine.catalog.save(entry)
        return
    if record.state.running or (exits.read(directory) and record.state.status == "created"):
        engine.lifecycle.take_over_exit(entry)


def _remove_stale_sockets(engine: Engine) -> None:
    running = {engine.socket_path(e.record.id) for e in engine.catalog if e.record.state.running}
    directory: Path = engine.run / "monitors"
    for path in directory.iterdir():
        if path not in running:
            path.unlink(missing_ok=True)
