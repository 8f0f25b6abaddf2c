"""Integrity: check the whole root against what was written, name who is affected, and repair what can be repaired."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from proa.engine.ancestry import chains_below
from proa.engine.catalog import RECORD
from proa.engine.clock import now
from proa.engine.volumes import Volume
from proa.errors import ProaError
from proa.storage import write_record
from proa.transfer import Credentials
from proa.transfer.progress import Progress, ProgressEvent, silent

if TYPE_CHECKING:
    from proa.engine.engine import Engine
    from proa.storage.check import Problem


# An index names manifests, these name configs and layers: what is missing below is known once what is above is there.
_GENERATIONS = 3


class Checked:
    """What a check found: all problems, and how many of them are still there."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.left = 0


class Integrity:
    """`system check`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def check(
        self,
        *,
        repair: bool = False,
        quick: bool = False,
        credentials: Mapping[str, Credentials] | None = None,
        progress: Progress = silent,
    ) -> Checked:
        """Look at everything that is stored; containers and transfers go on meanwhile.

        quick:    leave out what reads all bytes: blobs and layers
        repair:   put right what memory, the index, a registry or the layers' blobs still know
        credentials: of registries, to fetch from: see `Transfers.refetch`
        progress: a phase's progress, and each problem as `aux`
        """
        # What few need, and no start of an engine should wait for.
        from proa.storage.check import Graph, check_blobs, check_images, check_index, check_layers, check_records
        from proa.storage.repair import Repair

        engine = self._engine
        storage = engine.storage
        checked = Checked()
        fetch = partial(engine.transfers.refetch, credentials=credentials)

        def looked(what: str, done: int, total: int) -> None:
            progress(ProgressEvent(status="Checking", id=what, current=done, total=total))

        def settle(problems: Iterable[Problem]) -> bool:
            """Repair and tell; True when something was repaired."""
            found = list(problems)
            mender = Repair(storage, graph, fetch, self._running_on)
            for problem in found:
                problem.affected = sorted({*problem.affected, *self._containers_on(problem.subject)})
                if repair and not problem.repaired:
                    mender.apply(problem)
                checked.problems.append(problem)
                checked.left += not problem.repaired
                progress(ProgressEvent(aux=msgspec.to_builtins(problem)))
            return any(problem.repaired for problem in found)

        with storage.leases.hold("check"):
            graph = Graph(storage)
            settle(check_index(storage))
            settle([*check_records(storage, graph), *self._engine_records(repair)])
            if not quick:
                graph = Graph(storage)
                settle(self._suspected(check_blobs(storage, graph, looked)))
            for _ in range(_GENERATIONS):
                graph = Graph(storage)
                if not settle(check_images(storage, graph)):
                    break
            settle(check_layers(storage, graph, looked, quick=quick))
        return checked

    def _suspected(self, problems: Iterable[Problem]) -> Iterable[Problem]:
        for problem in problems:
            self._engine.storage.content.suspects.add(problem.subject)
            yield problem

    def _engine_records(self, repair: bool) -> Iterable[Problem]:
        """Records of containers, which memory has as well, and of volumes."""
        from proa.storage.check import Problem

        engine = self._engine
        for damaged in engine.catalog.damaged:
            directory = engine.catalog.directory / damaged
            yield Problem(
                kind="record",
                subject=str(directory / RECORD),
                detail="it cannot be read",
                affected=[damaged[:12]],
                hint=f"its files are kept: delete {directory} when they are not needed, and restart the engine",
            )
        for entry in engine.catalog:
            path = engine.catalog.path(entry) / RECORD
            with entry.lock:
                fault = "" if entry.removed else _fault(path)
                if fault and repair:
                    engine.catalog.save(entry)
            if fault:
                yield _faulty(path, fault, entry.record.name, "written again" if repair else "")
        for path in sorted(engine.volumes.directory.glob("*/volume.json")):
            if fault := _fault(path):
                name = path.parent.name
                if repair:
                    write_record(path, Volume(name=name, created=now(), mountpoint=str(path.parent / "data")))
                yield _faulty(path, fault, name, "made anew, without labels" if repair else "")

    def _running_on(self, chain: str) -> list[str]:
        snapshots = self._engine.storage.snapshots
        return [
            entry.record.name
            for entry in self._engine.catalog
            if entry.record.state.running and chain in chains_below(snapshots, entry.record.chain_id)
        ]

    def _containers_on(self, chain: str) -> list[str]:
        snapshots = self._engine.storage.snapshots
        return [e.record.name for e in self._engine.catalog if chain in chains_below(snapshots, e.record.chain_id)]


def _faulty(path: Path, fault: str, name: str, repaired: str) -> Problem:
    from proa.storage.check import Problem

    return Problem(kind="record", subject=str(path), detail=fault, affected=[name], repaired=repaired)


def _fault(path: Path) -> str:
    from proa.storage.check import record_fault

    try:
        return record_fault(path)
    except (ProaError, OSError) as error:
        return str(error)
