"""pause: stop every process of a container for a while."""

from __future__ import annotations

from proa.errors import Conflict, Invalid, Unsupported
from proa.runtime.cgroups import in_directories
from proa.runtime.cgroups.cgroup import Cgroup
from proa.runtime.verbs import records
from proa.runtime.verbs.options import Options, Settings

__all__ = ["OPTIONS", "cgroup_of", "run"]

OPTIONS: dict[str, str] = {}


def run(settings: Settings, _options: Options, words: list[str]) -> int:
    """The verb."""
    cgroup_of(settings, words, ("running", "created"), "paused").freeze()
    return 0


def cgroup_of(settings: Settings, words: list[str], statuses: tuple[str, ...], done: str) -> Cgroup:
    """The cgroup of the container named, which must be in one of these states. Raises Conflict, Unsupported."""
    if len(words) != 1:
        raise Invalid("one container id is needed", code="usage")
    directory, record = records.load(settings.root, words[0])
    status = records.status_of(directory, record)
    if status not in statuses:
        text = f"container {record.id} cannot be {done}: it is {status}"
        raise Conflict(text, code="wrong-status", subject=record.id)
    if not record.cgroup:
        raise Unsupported(f"container {record.id} has no cgroup", code="no-cgroup", subject=record.id)
    return in_directories(record.cgroup)
