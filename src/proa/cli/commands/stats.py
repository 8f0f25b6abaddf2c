"""`proa stats`."""

from __future__ import annotations

import time

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
    from collections.abc import Iterator
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
    watch = _Watch(Caller(locate(settings.host)), words, options)
    once = options.flag("no-stream")
    while True:
        rows = watch.rows()
        if not once and is_terminal(1) and not options.given("format"):
            _clear_screen()
        if rows or once or not words:
            show_rows(rows, COLUMNS, template=options.text("format"))
        if once or (words and not rows):
            return 0


class _Watch:
    """The samples of the named containers, or of all there are at each moment."""

    def __init__(self, caller: Caller, words: list[str], options: Options) -> None:
        self._caller = caller
        self._words = words
        self._once = options.flag("no-stream")
        self._all = options.flag("all")
        self._full = options.flag("no-trunc")
        self._lines: dict[str, Iterator[Any]] = {}
        self._begin(words)

    def _begin(self, names: list[str]) -> None:
        streams = []
        for name in names:  # all measure at the same time
            target = f"/containers/{quote(name)}/stats{query(stream='0' if self._once else '1')}"
            streams.append((name, self._caller.begin("GET", target)))
        for name, stream in streams:
            try:
                self._lines[name] = json_lines(self._caller.reply(stream))
            except NotFound:
                if self._words:
                    raise

    def rows(self) -> list[dict[str, str]]:
        """The next sample of each; waits a second for it."""
        if not self._words:
            listed = self._caller.call("GET", f"/containers/json{query(all=self._all)}")
            names = [record["Id"] for record in listed]
            self._lines = {name: line for name, line in self._lines.items() if name in names}
            self._begin([name for name in names if name not in self._lines])
            if not self._lines and not self._once:
                time.sleep(1)
        found = {name: next(line, None) for name, line in list(self._lines.items())}
        self._lines = {name: line for name, line in self._lines.items() if found[name]}
        return [stats_row(record, full=self._full) for record in found.values() if record]


def _clear_screen() -> None:
    """Clear the screen and go to its top."""
    import sys

    sys.stdout.write("\x1b[H\x1b[2J")
    sys.stdout.flush()


STATS = Command(
    "[OPTIONS] [CONTAINER...]", "Display a live stream of container(s) resource usage statistics", ROWS, _act
)
