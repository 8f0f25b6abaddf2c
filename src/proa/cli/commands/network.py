"""`proa network connect|create|disconnect|ls|reload|rm`."""

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
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["CONNECT", "CREATE", "DISCONNECT", "LS", "RELOAD", "RM"]

CONNECT_ROWS: tuple[Row, ...] = (
    ("alias", "", "list", "strings", "Add network-scoped alias for the container"),
    ("driver-opt", "", "list", "strings", "driver options for the network"),
    (
        "gw-priority",
        "",
        "int",
        "int",
        "Highest gw-priority provides the default gateway",
    ),
    ("ip", "", "text", "string", 'IPv4 address (e.g., "172.30.100.104")'),
    ("ip6", "", "text", "string", 'IPv6 address (e.g., "2001:db8::33")'),
)
CREATE_ROWS: tuple[Row, ...] = (
    ("attachable", "", "flag", "", "Enable manual container attachment"),
    ("aux-address", "", "list", "map", "Auxiliary IPv4 or IPv6 addresses used by Network driver"),
    ("driver", "d", "text", "string", 'Driver to manage the Network (default "bridge")'),
    ("gateway", "", "list", "strings", "IPv4 or IPv6 gateway for the master subnet"),
    ("internal", "", "flag", "", "Restrict external access to the network"),
    ("ip-range", "", "list", "strings", "Allocate container ip from a sub-range"),
    ("ipam-driver", "", "text", "string", 'IP Address Management Driver (default "default")'),
    ("ipam-opt", "", "list", "map", "Set IPAM driver specific options"),
    ("ipv4", "", "flag", "", "Enable or disable IPv4 address assignment"),
    ("ipv6", "", "flag", "", "Enable or disable IPv6 address assignment (default: on where the host has IPv6)"),
    ("label", "", "list", "list", "Set metadata on a network"),
    ("opt", "o", "list", "map", "Set driver specific options"),
    ("scope", "", "text", "string", "Control the network's scope"),
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
        "Attachable": options.flag("attachable"),
        "Scope": options.text("scope"),
        "Labels": key_values(options.texts("label"), "label"),
        "Options": key_values(options.texts("opt"), "opt"),
    }
    for name, key in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if options.given(name):
            document[key] = options.flag(name)
    document["IPAM"] = {"Driver": options.text("ipam-driver", "default"), "Config": _pools(options)}
    if options.given("ipam-opt"):
        document["IPAM"]["Options"] = key_values(options.texts("ipam-opt"), "ipam-opt")
    emit(f"{Caller(locate(settings.host)).call('POST', '/networks/create', document)['Id']}\n")
    return 0


def _pools(options: Options) -> list[dict[str, Any]]:
    """Each gateway, range and auxiliary address goes to the subnet it lies in. Raises Invalid for one in none."""
    from ipaddress import ip_network

    def parse(text: str, option: str) -> Any:
        try:
            return ip_network(text, strict=False)
        except ValueError:
            raise Invalid(f"invalid value `{text}` for --{option}", code="bad-address") from None

    pools: list[tuple[Any, dict[str, Any]]] = [
        (parse(text, "subnet"), {"Subnet": text}) for text in options.texts("subnet")
    ]
    for one, _ in pools:
        if sum(one.overlaps(other) for other, _ in pools if other.version == one.version) > 1:
            raise Invalid("multiple overlapping subnet configuration is not supported", code="bad-address")

    def put(text: str, option: str, key: str, name: str = "") -> None:
        wanted = parse(text, option)
        for subnet, pool in pools:
            if subnet.version == wanted.version and wanted.subnet_of(subnet):
                if name:
                    pool.setdefault(key, {})[name] = text
                elif key in pool:
                    raise Invalid(f"cannot configure multiple --{option} on the same subnet", code="bad-address")
                else:
                    pool[key] = text
                return
        raise Invalid(f"no matching subnet for --{option} {text}", code="bad-address")

    for text in options.texts("ip-range"):
        put(text, "ip-range", "IPRange")
    for text in options.texts("gateway"):
        put(text, "gateway", "Gateway")
    for name, text in key_values(options.texts("aux-address"), "aux-address", need_value=True).items():
        put(text, "aux-address", "AuxiliaryAddresses", name)
    return [pool for _, pool in pools]


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


def _connect(settings: Settings, options: Options, words: list[str]) -> int:
    endpoint: dict[str, Any] = {}
    addresses = {k: options.text(o) for o, k in (("ip", "IPv4Address"), ("ip6", "IPv6Address")) if options.given(o)}
    if addresses:
        endpoint["IPAMConfig"] = addresses
    if options.given("alias"):
        endpoint["Aliases"] = options.texts("alias")
    if options.given("driver-opt"):
        endpoint["DriverOpts"] = key_values(options.texts("driver-opt"), "driver-opt", need_value=True)
    if options.given("gw-priority"):
        endpoint["GwPriority"] = options.number("gw-priority")
    document = {"Container": words[1], "EndpointConfig": endpoint}
    Caller(locate(settings.host)).call("POST", f"/networks/{quote(words[0])}/connect", document)
    return 0


def _disconnect(settings: Settings, options: Options, words: list[str]) -> int:
    document = {"Container": words[1], "Force": options.flag("force")}
    Caller(locate(settings.host)).call("POST", f"/networks/{quote(words[0])}/disconnect", document)
    return 0


def _reload(settings: Settings, _: Options, words: list[str]) -> int:  # noqa: ARG001
    for warning in Caller(locate(settings.host)).call("POST", "/proa/v1/networks/reload")["Warnings"] or ():
        emit(f"WARNING: {warning}\n")
    return 0


CONNECT = Command(
    "[OPTIONS] NETWORK CONTAINER", "Connect a container to a network", CONNECT_ROWS, _connect, least=2, most=2
)
CREATE = Command("[OPTIONS] NETWORK", "Create a network", CREATE_ROWS, _create, least=1, most=1)
DISCONNECT = Command(
    "[OPTIONS] NETWORK CONTAINER",
    "Disconnect a container from a network",
    (("force", "f", "flag", "", "Force the container to disconnect from a network"),),
    _disconnect,
    least=2,
    most=2,
)
LS = Command("[OPTIONS]", "List networks", LS_ROWS, _ls, most=0)
RELOAD = Command("", "Make bridges, addresses, rules and published ports true again", (), _reload, most=0)
RM = Command(
    "[OPTIONS] NETWORK [NETWORK...]",
    "Remove one or more networks",
    (("force", "f", "flag", "", "Do not error if the network does not exist"),),
    _rm,
    least=1,
)
