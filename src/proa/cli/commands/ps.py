"""`proa ps`."""

from __future__ import annotations

from proa.cli.options import Command
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["PS"]

ROWS: tuple[Row, ...] = (
    ("all", "a", "flag", "", "Show all containers (default shows just running)"),
    ("filter", "f", "list", "filter", "Filter output based on conditions provided"),
    ("format", "", "text", "string", "Format output: table, json, or a Go template"),
    ("last", "n", "int", "int", "Show n last created containers (includes all states)"),
    ("latest", "l", "flag", "", "Show the latest created container (includes all states)"),
    ("no-trunc", "", "flag", "", "Don't truncate output"),
    ("quiet", "q", "flag", "", "Only display container IDs"),
    ("size", "s", "flag", "", "Display total file sizes"),
)

COLUMNS = (
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
)
HEADERS = {"CreatedAt": "CREATED AT", "LocalVolumes": "LOCAL VOLUMES", "Size": "SIZE"}


def port_text(ports: list[dict[str, Any]]) -> str:
    """`0.0.0.0:8080->80/tcp, 443/tcp`, with runs of ports joined."""
    runs: list[list[Any]] = []  # [ip, first public, first private, length, protocol]
    for port in sorted(ports, key=lambda p: (p["Type"], p.get("IP", ""), p.get("PublicPort", 0), p["PrivatePort"])):
        ip, public, private, kind = port.get("IP", ""), port.get("PublicPort", 0), port["PrivatePort"], port["Type"]
        if runs:
            last = runs[-1]
            follows = private == last[2] + last[3] and public == (last[1] + last[3] if last[1] else 0)
            if follows and (last[0], last[4]) == (ip, kind):
                last[3] += 1
                continue
        runs.append([ip, public, private, 1, kind])
    texts = []
    for ip, public, private, length, kind in runs:
        inner = f"{private}-{private + length - 1}" if length > 1 else str(private)
        if public:
            outer = f"{public}-{public + length - 1}" if length > 1 else str(public)
            inner = f"{f'[{ip}]' if ':' in ip else ip}:{outer}->{inner}"
        texts.append(f"{inner}/{kind}")
    return ", ".join(texts)


def container_row(record: dict[str, Any], *, full: bool = False, size: bool = False) -> dict[str, str]:
    """The fields a template can name, of one container of the engine's list."""
    from proa.cli.humanise import age, decimal_size, local_time, short_id

    command = record["Command"]
    if not full and len(command) > 20:
        command = command[:19] + "…"
    image = record["Image"]
    if not full and image.startswith("sha256:"):
        image = short_id(image)
    if not full and "@" in image:
        image = image.partition("@")[0]
    mounts = [m.get("Name") or m.get("Source", "") for m in record.get("Mounts") or ()]
    sizes = ""
    if size:
        total = record.get("SizeRootFs", 0)
        sizes = decimal_size(record.get("SizeRw", 0)) + (f" (virtual {decimal_size(total)})" if total else "")
    return {
        "ID": short_id(record["Id"], full=full),
        "Image": image or "<no image>",
        "Command": f'"{command}"',
        "CreatedAt": local_time(record["Created"]),
        "RunningFor": age(record["Created"]),
        "Status": record["Status"],
        "State": record.get("State", ""),
        "Ports": port_text(record.get("Ports") or []),
        "Names": ",".join([name.removeprefix("/") for name in record["Names"]]),
        "Labels": ",".join([f"{k}={v}" for k, v in sorted((record.get("Labels") or {}).items())]),
        "LocalVolumes": str(sum(m.get("Driver") == "local" for m in record.get("Mounts") or ())),
        "Mounts": ",".join([m if full or len(m) <= 15 else m[:14] + "…" for m in mounts]),
        "Networks": ",".join(sorted((record.get("NetworkSettings") or {}).get("Networks") or {})),
        "Size": sizes,
    }


def _act(settings: Settings, options: Options, _: list[str]) -> int:
    last = 1 if options.flag("latest") else options.number("last", -1)
    size = options.flag("size") and not options.flag("quiet")
    asked = None
    if options.given("filter"):
        from proa.cli.filters import filters

        asked = filters(options.texts("filter"))
    target = query(all=options.flag("all"), limit=last if last > 0 else None, size=size, filters=asked)
    records = Caller(locate(settings.host)).call("GET", f"/containers/json{target}")
    full = options.flag("no-trunc")
    rows = [container_row(record, full=full, size=size) for record in records]
    from proa.cli.output import show_rows

    columns = (*COLUMNS, ("Size", "SIZE")) if size else COLUMNS
    quiet = "ID" if options.flag("quiet") else ""
    show_rows(rows, columns, template=options.text("format"), quiet=quiet, headers=HEADERS)
    return 0


PS = Command("[OPTIONS]", "List containers", ROWS, _act, most=0)
