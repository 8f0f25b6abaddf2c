"""`proa network create|ls|rm`."""

from __future__ import annotations

from proa.cli.filters import filters
from proa.cli.humanise import short_id
from proa.cli.many import for_each
from proa.cli.options import Command
from proa.cli.output import emit, show_rows
from proa.cli.values import key_values
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import query, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["CREATE", "LS", "RM"]

CREATE_ROWS: tuple[Row, ...] = (
    ("driver", "d", "text", "string", 'Driver to manage the Network (default "bridge")'),
    ("gateway", "", "list", "strings", "IPv4 or IPv6 gateway for the master subnet"),
    ("internal", "", "flag", "", "Restrict external access to the network"),
    ("ip-range", "", "list", "strings", "Allocate container ip from a sub-range"),
    ("ipv6", "", "flag", "", "Enable IPv6 networking"),
    ("label", "", "list", "list", "Set metadata on a network"),
    ("opt", "o", "list", "map", "Set driver specific options"),
    ("subnet", "", "list", "strings", "Subnet in CIDR format that represents a network segment"),
)
LS_ROWS: tuple[Row, ...] = (
    ("filter", "f", "list", "filter", 'Provide filter values (e.g. "driver=bridge")'),
    ("format", "", "text", "string", "Format output: table, json, or a Go template"),
    ("no-trunc", "", "flag", "", "Do not truncate the output"),
    ("quiet", "q", "flag", "", "Only display network IDs"),
)


def _create(settings: Settings, options: Options, words: list[str]) -> int:
    document: dict[str, Any] = {
        "Name": words[0],
        "Driver": options.text("driver", "bridge"),
        "Internal": options.flag("internal"),
        "EnableIPv6": options.flag("ipv6"),
        "Labels": key_values(options.texts("label"), "label"),
        "Options": key_values(options.texts("opt"), "opt"),
    }
    pools = []
    for number, subnet in enumerate(options.texts("subnet")):
        pool = {"Subnet": subnet}
        for name, key in (("gateway", "Gateway"), ("ip-range", "IPRange")):
            if number < len(options.texts(name)):
                pool[key] = options.texts(name)[number]
        pools.append(pool)
    document["IPAM"] = {"Driver": "default", "Config": pools}
    emit(f"{Caller(locate(settings.host)).call('POST', '/networks/create', document)['Id']}\n")
    return 0


def _ls(settings: Settings, options: Options, _: list[str]) -> int:
    records = Caller(locate(settings.host)).call("GET", f"/networks{query(filters=filters(options.texts('filter')))}")
    full = options.flag("no-trunc")
    rows = [
        {
            "ID": short_id(r["Id"], full=full),
            "Name": r["Name"],
            "Driver": r["Driver"],
            "Scope": r["Scope"],
            "IPv4": str(r.get("EnableIPv4", True)).lower(),
            "IPv6": str(r.get("EnableIPv6", False)).lower(),
            "Internal": str(r.get("Internal", False)).lower(),
            "Labels": ",".join([f"{k}={v}" for k, v in sorted((r.get("Labels") or {}).items())]),
            "CreatedAt": r.get("Created", ""),
        }
        for r in sorted(records, key=lambda r: r["Name"])
    ]
    columns = (("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE"))
    show_rows(rows, columns, template=options.text("format"), quiet="ID" if options.flag("quiet") else "")
    return 0


def _rm(settings: Settings, options: Options, words: list[str]) -> int:
    force = options.flag("force")
    return for_each(settings, words, lambda name: ("DELETE", f"/networks/{quote(name)}"), missing_is_fine=force)


CREATE = Command("[OPTIONS] NETWORK", "Create a network", CREATE_ROWS, _create, least=1, most=1)
LS = Command("[OPTIONS]", "List networks", LS_ROWS, _ls, most=0)
RM = Command(
    "NETWORK [NETWORK...]",
    "Remove one or more networks",
    (("force", "f", "flag", "", "Do not error if the network does not exist"),),
    _rm,
    least=1,
)
