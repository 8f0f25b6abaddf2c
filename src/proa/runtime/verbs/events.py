"""events: tell what a container uses, once or again and again, and that its memory ran out."""

from __future__ import annotations

import os
import select
import sys

from proa.errors import Conflict, Invalid, Unsupported
from proa.runtime.cgroups import in_directories
from proa.runtime.cgroups.cgroup import Cgroup, Stats
from proa.runtime.verbs import documents, records
from proa.runtime.verbs.options import FLAG, VALUE, Options, Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["OPTIONS", "run"]

OPTIONS = {"--interval": VALUE, "--stats": FLAG}
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def run(settings: Settings, options: Options, words: list[str]) -> int:
    """The verb."""
    if len(words) != 1:
        raise Invalid("one container id is needed", code="usage")
    interval_ms = duration_ms(options.value("interval", "5s"))
    directory, record = records.load(settings.root, words[0])
    if records.status_of(directory, record) == "stopped":
        raise Conflict(f"container {record.id} is not running", code="container-not-running", subject=record.id)
    if not record.cgroup:
        raise Unsupported(f"container {record.id} has no cgroup", code="no-cgroup", subject=record.id)
    group = in_directories(record.cgroup)
    if options.flag("stats"):
        _tell("stats", record.id, _document(group.stats()))
        return 0
    _repeat(group, record, interval_ms)
    return 0


def _repeat(group: Cgroup, record: records.Record, interval_ms: int) -> None:
    pidfd = os.pidfd_open(record.pid)
    try:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        kills = group.oom_kills()
        while not ended.poll(interval_ms):
            if (now := group.oom_kills()) > kills:
                kills = now
                _tell("oom", record.id, None)
            _tell("stats", record.id, _document(group.stats()))
    finally:
        os.close(pidfd)


def _tell(kind: str, container_id: str, data: Any) -> None:
    event = {"type": kind, "id": container_id} | ({"data": data} if data is not None else {})
    sys.stdout.write(documents.encode(event) + "\n")
    sys.stdout.flush()


def duration_ms(text: str) -> int:
    """Milliseconds of a duration such as `5s` or `500ms`. Raises Invalid."""
    number = text.rstrip("msh")
    unit = _UNITS_MS.get(text[len(number) :], 0)
    if not (number.isascii() and number.isdecimal() and len(number) < 10 and unit and int(number)):
        raise Invalid(f"`{text}` is not a duration such as 5s", code="usage")
    return int(number) * unit


def _document(stats: Stats) -> dict[str, Any]:
    """As runc's `events` has it (libcontainer/events.go, types.Stats)."""

    def entries(counts: dict[tuple[int, int, str], int]) -> list[dict[str, Any]]:
        return [
            {"major": major, "minor": minor, "op": operation.capitalize(), "value": value}
            for (major, minor, operation), value in counts.items()
        ]

    memory: dict[str, Any] = {"usage": stats.memory_usage, "max": stats.memory_max_usage}
    memory["failcnt"] = stats.memory_failures
    memory["limit"] = stats.memory_limit if stats.memory_limit >= 0 else (1 << 63) - 1
    return {
        "cpu": {
            "usage": {"total": stats.cpu_total_ns, "kernel": stats.cpu_system_ns, "user": stats.cpu_user_ns},
            "throttling": {
                "periods": stats.cpu_periods,
                "throttledPeriods": stats.cpu_throttled_periods,
                "throttledTime": stats.cpu_throttled_ns,
            },
        },
        "memory": {"usage": memory, "raw": stats.memory_stat},
        "pids": {"current": stats.pids_current} | ({"limit": stats.pids_limit} if stats.pids_limit >= 0 else {}),
        "blkio": {
            "ioServiceBytesRecursive": entries(stats.io_bytes),
            "ioServicedRecursive": entries(stats.io_operations),
        },
    }
