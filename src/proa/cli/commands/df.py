"""`proa system df`: what is stored, and what it takes on disk."""

from __future__ import annotations

from proa.cli.humanise import decimal_size
from proa.cli.options import Command, UsageError
from proa.cli.output import emit, show_rows, table
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["DF"]

ROWS: tuple[Row, ...] = (
    ("format", "", "text", "string", "Format output: table, json, or a Go template"),
    ("verbose", "v", "flag", "", "Show detailed information on space usage"),
)
COLUMNS = (
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
)


def _act(settings: Settings, options: Options, _: list[str]) -> int:
    caller = Caller(locate(settings.host))
    if options.flag("verbose"):
        if options.given("format"):
            raise UsageError("--format and --verbose cannot be used together", 1)
        _show_all(caller.call("GET", "/system/df"))
        return 0
    try:
        rows = _disk_rows(caller.call("GET", "/proa/v1/usage"))
    except NotFound:
        rows = _docker_rows(caller.call("GET", "/system/df"))
    show_rows(rows, COLUMNS, template=options.text("format"))
    return 0


def _disk_rows(usage: dict[str, Any]) -> list[dict[str, str]]:
    """proa's own figures: allocated bytes, which add up to what du finds in the data root."""
    rows = [
        _row(kind, *(usage[key][field] for field in ("TotalCount", "Active", "Size", "Reclaimable")))
        for kind, key in (("Images", "Images"), ("Containers", "Containers"), ("Local Volumes", "Volumes"))
    ]
    rows.append(_row("Build Cache", 0, 0, 0, 0))
    for kind, size in (("Engine", usage["Engine"]["Size"]), ("Total", usage["Total"])):
        rows.append({"Type": kind, "TotalCount": "", "Active": "", "Size": decimal_size(size, 4), "Reclaimable": ""})
    return rows


def _docker_rows(usage: dict[str, Any]) -> list[dict[str, str]]:
    """Another engine's figures, summed up as its own client does."""
    images, volumes = usage.get("Images") or [], usage.get("Volumes") or []
    used = sum(i["Size"] - max(i.get("SharedSize", 0), 0) for i in images if i.get("Containers", 0) > 0)
    layers = usage.get("LayersSize", 0)
    out = [_row("Images", len(images), sum(i.get("Containers", 0) > 0 for i in images), layers, layers - used)]

    def add(kind: str, records: list[dict[str, Any]], sizes: list[int], active: list[bool]) -> None:
        free = sum(size for size, is_active in zip(sizes, active, strict=True) if not is_active)
        out.append(_row(kind, len(records), sum(active), sum(sizes), free))

    containers, caches = usage.get("Containers") or [], usage.get("BuildCache") or []
    running = [c.get("State") in ("running", "paused", "restarting") for c in containers]
    add("Containers", containers, [int(c.get("SizeRw") or 0) for c in containers], running)
    data = [v.get("UsageData") or {} for v in volumes]
    add("Local Volumes", volumes, [max(d.get("Size", 0), 0) for d in data], [d.get("RefCount", 0) > 0 for d in data])
    add("Build Cache", caches, [int(c.get("Size") or 0) for c in caches], [bool(c.get("InUse")) for c in caches])
    return out


def _row(kind: str, total: int, active: int, size: int, free: int) -> dict[str, str]:
    free = min(max(free, 0), size)
    share = f" ({free * 100 // size}%)" if size and kind != "Build Cache" else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": decimal_size(size, 4),
        "Reclaimable": decimal_size(free, 4) + share,
    }


def _show_all(usage: dict[str, Any]) -> None:
    """Docker's tables, one a kind of object."""
    from proa.cli.commands.images import image_rows
    from proa.cli.commands.ps import container_row

    images = []
    for record in usage.get("Images") or []:
        shared, count = max(record.get("SharedSize", 0), 0), record.get("Containers", 0)
        sizes = [decimal_size(record["Size"]), decimal_size(shared, 4), decimal_size(record["Size"] - shared, 4)]
        images += [
            [row["Repository"], row["Tag"], row["ID"], row["CreatedSince"], *sizes, str(count)]
            for row in image_rows(record)
        ]
    header = "REPOSITORY,TAG,IMAGE ID,CREATED,SIZE,SHARED SIZE,UNIQUE SIZE,CONTAINERS"
    emit("Images space usage:\n\n" + table(header.split(","), images))
    fields = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
    containers = [container_row(record, size=True) for record in usage.get("Containers") or []]
    for row in containers:
        row["Size"] = row["Size"].partition(" ")[0]
    header = "CONTAINER ID,IMAGE,COMMAND,LOCAL VOLUMES,SIZE,CREATED,STATUS,NAMES"
    emit("\nContainers space usage:\n\n" + table(header.split(","), [[row[f] for f in fields] for row in containers]))
    volumes = [
        [volume["Name"], str(data.get("RefCount", 0)), decimal_size(max(data.get("Size", 0), 0), 4)]
        for volume in usage.get("Volumes") or []
        for data in (volume.get("UsageData") or {},)
    ]
    emit("\nLocal Volumes space usage:\n\n" + table(["VOLUME NAME", "LINKS", "SIZE"], volumes))
    caches = usage.get("BuildCache") or []
    emit(f"\nBuild cache usage: {decimal_size(sum(int(c.get('Size') or 0) for c in caches))}\n")


DF = Command("[OPTIONS]", "Show disk usage", ROWS, _act, most=0)
