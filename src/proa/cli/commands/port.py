"""`proa port`."""

from __future__ import annotations

from proa.cli.options import Command
from proa.cli.terminal import emit
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import quote
from proa.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Settings

__all__ = ["PORT"]


def _act(settings: Settings, _: Options, words: list[str]) -> int:
    record = Caller(locate(settings.host)).call("GET", f"/containers/{quote(words[0])}/json")
    ports = record["NetworkSettings"].get("Ports") or {}
    wanted = None
    if len(words) > 1:
        wanted = words[1] if "/" in words[1] else f"{words[1]}/tcp"
        if not ports.get(wanted):
            raise NotFound(f"no public port '{words[1]}' published for {words[0]}", code="port-not-published")
    lines = []
    for port in sorted(ports, key=lambda p: (int(p.partition("/")[0]), p)):
        for binding in ports[port] or ():
            address = f"[{binding['HostIp']}]" if ":" in binding["HostIp"] else binding["HostIp"]
            text = f"{address}:{binding['HostPort']}"
            if wanted is None:
                lines.append(f"{port} -> {text}\n")
            elif port == wanted:
                lines.append(f"{text}\n")
    emit("".join(lines))
    return 0


PORT = Command(
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    (),
    _act,
    least=1,
    most=2,
)
