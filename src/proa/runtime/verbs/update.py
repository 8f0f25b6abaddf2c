"""update: change the limits of a container that runs."""

from __future__ import annotations

from proa.errors import Invalid, Unsupported
from proa.runtime.verbs import documents
from proa.runtime.verbs.options import VALUE, Options, Settings, integer
from proa.runtime.verbs.pause import cgroup_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["OPTIONS", "run"]

# option: where its value goes in OCI `linux.resources`, and what it is.
_PLACES: dict[str, tuple[str, str, str]] = {
    "blkio-weight": ("blockIO", "weight", "number"),
    "cpu-period": ("cpu", "period", "number"),
    "cpu-quota": ("cpu", "quota", "number"),
    "cpu-burst": ("cpu", "burst", "number"),
    "cpu-idle": ("cpu", "idle", "number"),
    "cpu-share": ("cpu", "shares", "number"),
    "cpu-rt-period": ("cpu", "realtimePeriod", "number"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime", "number"),
    "cpuset-cpus": ("cpu", "cpus", "text"),
    "cpuset-mems": ("cpu", "mems", "text"),
    "memory": ("memory", "limit", "size"),
    "memory-reservation": ("memory", "reservation", "size"),
    "memory-swap": ("memory", "swap", "size"),
    "pids-limit": ("pids", "limit", "number"),
}
_REFUSED = ("l3-cache-schema", "mem-bw-schema")
_IGNORED = ("kernel-memory", "kernel-memory-tcp")  # limits that no kernel has any more
OPTIONS = {
    "--resources": VALUE,
    "-r": "--resources",
    **{f"--{name}": VALUE for name in (*_PLACES, *_REFUSED, *_IGNORED)},
}
_FACTORS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def run(settings: Settings, options: Options, words: list[str]) -> int:
    """The verb."""
    for name in _REFUSED:
        if options.given(name):
            raise Unsupported(f"--{name}: resctrl is not supported", code="unsupported-option")
    if path := options.value("resources"):
        resources = documents.read_document(path)
        if not isinstance(resources, dict):
            raise Invalid(f"{path} does not hold resources", code="invalid-config", subject=path)
        resources.pop("devices", None)  # set at creation, as with runc
    else:
        resources = _from_options(options)
    cgroup_of(settings, words, ("created", "running", "paused"), "updated").apply(resources)
    return 0


def _from_options(options: Options) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    for name, (group, key, kind) in _PLACES.items():
        if options.given(name):
            text = options.value(name)
            value = text if kind == "text" else size(text) if kind == "size" else integer(text, f"--{name}")
            resources.setdefault(group, {})[key] = value
    return resources


def size(text: str) -> int:
    """Bytes of a number with an optional factor of 1024: `64m`. Raises Invalid."""
    number = text.lower().removesuffix("b") if text[-2:-1].isalpha() else text.lower()
    factor = _FACTORS.get(number[-1:], 0)
    return integer(number[:-1], "a size") * factor if factor else integer(number, "a size")
