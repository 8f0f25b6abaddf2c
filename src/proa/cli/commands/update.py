"""`proa update`."""

from __future__ import annotations

from proa.cli.many import for_each
from proa.cli.options import Command, UsageError
from proa.cli.output import note
from proa.cli.values import byte_size, nano_cpus, published_ports, restart_policy
from proa.client.http import quote
from proa.client.jsonlite import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["UPDATE"]

ROWS: tuple[Row, ...] = (
    ("blkio-weight", "", "int", "int", "Block IO weight, between 10 and 1000, or 0 to disable"),
    ("cpu-period", "", "int", "int", "Limit CPU CFS (Completely Fair Scheduler) period"),
    ("cpu-quota", "", "int", "int", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    ("cpu-shares", "c", "int", "int", "CPU shares (relative weight)"),
    ("cpus", "", "text", "decimal", "Number of CPUs"),
    ("cpuset-cpus", "", "text", "string", "CPUs in which to allow execution (0-3, 0,1)"),
    ("cpuset-mems", "", "text", "string", "MEMs in which to allow execution (0-3, 0,1)"),
    ("memory", "m", "text", "bytes", "Memory limit"),
    ("memory-reservation", "", "text", "bytes", "Memory soft limit"),
    ("memory-swap", "", "text", "bytes", "Swap limit equal to memory plus swap: -1 to enable unlimited swap"),
    ("pids-limit", "", "int", "int", "Tune container pids limit (set -1 for unlimited)"),
    ("publish-add", "", "list", "list", "Publish a port of the container, also while it runs (as run -p)"),
    ("publish-rm", "", "list", "list", "Unpublish a port: PORT[/PROTO] or [IP:]HOST_PORT:PORT[/PROTO]"),
    ("restart", "", "text", "string", "Restart policy to apply when a container exits"),
)
_NUMBERS = (
    ("blkio-weight", "BlkioWeight"),
    ("cpu-period", "CpuPeriod"),
    ("cpu-quota", "CpuQuota"),
    ("cpu-shares", "CpuShares"),
    ("pids-limit", "PidsLimit"),
)
_SIZES = (("memory", "Memory"), ("memory-reservation", "MemoryReservation"), ("memory-swap", "MemorySwap"))


def update_document(options: Options) -> dict[str, Any]:
    """The document of POST /containers/{id}/update. Raises Invalid."""
    document: dict[str, Any] = {key: options.number(name) for name, key in _NUMBERS if options.given(name)}
    document |= {key: byte_size(options.text(name), name) for name, key in _SIZES if options.given(name)}
    for name, key in (("cpuset-cpus", "CpusetCpus"), ("cpuset-mems", "CpusetMems")):
        if options.given(name):
            document[key] = options.text(name)
    if options.given("cpus"):
        document["NanoCpus"] = nano_cpus(options.text("cpus"))
    if options.given("restart"):
        document["RestartPolicy"] = restart_policy(options.text("restart"))
    return document


def ports_document(options: Options) -> dict[str, Any]:
    """The document of POST /proa/v1/containers/{id}/ports; empty when no port is to change. Raises Invalid."""
    if not (options.given("publish-add") or options.given("publish-rm")):
        return {}
    return {"Add": published_ports(options.texts("publish-add"))[1], "Remove": options.texts("publish-rm")}


def _act(settings: Settings, options: Options, words: list[str]) -> int:
    document, ports = update_document(options), ports_document(options)
    if not (document or ports):
        raise UsageError("you must provide one or more flags when using this command", 1)
    if ports:
        status = for_each(
            settings,
            words,
            lambda name: ("POST", f"/proa/v1/containers/{quote(name)}/ports"),
            show=lambda name, _: "" if document else name,
            document=ports,
        )
        if status or not document:
            return status

    def show(name: str, body: bytes) -> str:
        for warning in loads(body).get("Warnings") or ():
            note(f"WARNING: {warning}")
        return name

    def request(name: str) -> tuple[str, str]:
        return "POST", f"/containers/{quote(name)}/update"

    return for_each(settings, words, request, show=show, document=document)


UPDATE = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]", "Update configuration of one or more containers", ROWS, _act, least=1
)
