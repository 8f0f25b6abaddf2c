"""Hooks that verbs run, on the host, with a container's state as their input."""

from __future__ import annotations

from proa.errors import ProaError
from proa.runtime.hooks import Hook, run_hooks
from proa.runtime.verbs import log, records
from proa.runtime.verbs.documents import encode
from proa.runtime.verbs.options import Settings
from proa.runtime.verbs.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["parse_hooks", "run_all", "run_strictly"]


def parse_hooks(raw: list[dict[str, Any]] | None) -> list[Hook]:
    """Hooks of a config that was checked when the container was created."""
    return [
        Hook(hook["path"], tuple(hook.get("args") or ()), tuple(hook.get("env") or ()), hook.get("timeout") or 0)
        for hook in raw or ()
    ]


def run_strictly(kind: str, hooks: list[Hook], record: Record, status: str) -> None:
    """Run hooks; one that fails ends it. Raises as `runtime.hooks.run_hook`."""
    run_hooks(kind, hooks, encode(records.state_of(record, status)).encode())


def run_all(settings: Settings, kind: str, record: Record, status: str) -> None:
    """Run the hooks that the record keeps; one that fails is told of and the rest run all the same."""
    for hook in parse_hooks(record.hooks[kind]):
        try:
            run_strictly(kind, [hook], record, status)
        except (ProaError, OSError) as error:
            log.warn(settings, str(error))
