"""`proa stats`."""

from __future__ import annotations

from proa.cli.humanise import binary_size, decimal_size, short_id
from proa.cli.options import Command
from proa.cli.output import show_rows
from proa.cli.terminal import is_terminal
from proa.client.caller import Caller, json_lines
from proa.client.endpoint import locate
from proa.client.http import query, quote
from proa.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["STATS", "stats_row"]

ROWS: tuple[Row, ...] = (
    ("all", "a", "flag", "", "Show all containers (default shows just running)"),
    ("format", "", "text", "string", "Format output: table, json, or a Go template"),
    ("no-stream", "", "flag", "", "Disable streaming stats and only pull the first result"),
    ("no-trunc", "", "flag", "", "Do not truncate output"),
)
COLUMNS = (
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
)


def stats_row(record: dict[str, Any], *, full: bool = False) -> dict[str, str]:
    """One sample's fields: CPU between its two measurements, memory without the page cache that can go."""
    cpu, before = record.get("cpu_stats") or {}, record.get("precpu_stats") or {}
    used = cpu.get("cpu_usage", {}).get("total_usage", 0) - before.get("cpu_usage", {}).get("total_usage", 0)
    system = cpu.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    count = cpu.get("online_cpus") or len(cpu.get("cpu_usage", {}).get("percpu_usage") or ()) or 1
    percent = used / system * count * 100 if used > 0 and system > 0 else 0.0
    memory = record.get("memory_stats") or {}
    details = memory.get("stats") or {}
    usage, limit = memory.get("usage", 0), memory.get("limit", 0)
    inactive = details.get("total_inactive_file", details.get("inactive_file", 0))  # cgroup v1, v2
    usage = usage - inactive if inactive < usage else usage
    networks = (record.get("networks") or {}).values()
    blocks: dict[str, int] = {"read": 0, "write": 0}
    for entry in (record.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ():
        operation = str(entry.get("op", "")).lower()
        if operation in blocks:
            blocks[operation] += entry.get("value", 0)
    return {
        "ID": short_id(record.get("id", ""), full=full),
        "Container": short_id(record.get("id", ""), full=full),
        "Name": record.get("name", "").removeprefix("/"),
        "CPUPerc": f"{percent:.2f}%",
        "MemUsage": f"{binary_size(usage)} / {binary_size(limit)}",
        "MemPerc": f"{usage / limit * 100 if limit else 0.0:.2f}%",
        "NetIO": " / ".join([decimal_size(sum(n.get(k, 0) for n in networks)) for k in ("rx_bytes", "tx_bytes")]),
        "BlockIO": f"{decimal_size(blocks['read'])} / {decimal_size(blocks['write'])}",
        "PIDs": str((record.get("pids_stats") or {}).get("current", 0)),
    }


def _act(settings: Settings, options: Options, words: list[str]) -> int:
    caller = Caller(locate(settings.host))
    once = options.flag("no-stream")
    names = words
    if not names:
        listed = caller.call("GET", f"/containers/json{query(all=options.flag('all'))}")
        names = [record["Id"] for record in listed]
    targets = [f"/containers/{quote(name)}/stats{query(stream='0' if once else '1')}" for name in names]
    streams = [caller.begin("GET", target) for target in targets]  # all measure at the same time
    full = options.flag("no-trunc")

    def show(rows: list[dict[str, str]]) -> None:
        show_rows(rows, COLUMNS, template=options.text("format"))

    lines = []
    for stream in streams:
        try:
            lines.append(json_lines(caller.reply(stream)))
        except NotFound:
            if words:
                raise
    while True:
        rows = [stats_row(record, full=full) for record in [next(line, None) for line in lines] if record]
        if not once and is_terminal(1) and not options.given("format"):
            _clear_screen()
        if rows or once:
            show(rows)
        if once or not rows:
            return 0


def _clear_screen() -> None:
    """Clear the screen and go to its top."""
    import sys

    sys.stdout.write("\x1b[H\x1b[2J")
    sys.stdout.flush()


STATS = Command(
    "[OPTIONS] [CONTAINER...]", "Display a live stream of container(s) resource usage statistics", ROWS, _act
)
