"""update: change the limits of a container that runs."""

from __future__ import annotations

from proa.errors import Invalid, Unsupported
from proa.runtime.sizes import byte_size
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
            value: str | int = text
            if kind == "number" or (kind == "size" and text == "-1"):  # no limit
                value = integer(text, f"--{name}")
            elif kind == "size":
                value = byte_size(text)
            resources.setdefault(group, {})[key] = value
    return resources
