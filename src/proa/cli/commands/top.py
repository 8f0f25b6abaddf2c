"""`proa top`."""

from __future__ import annotations

from proa.cli.options import Command
from proa.cli.output import emit, table
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import query, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Settings

__all__ = ["TOP"]


def _act(settings: Settings, _: Options, words: list[str]) -> int:
    target = f"/containers/{quote(words[0])}/top{query(ps_args=' '.join(words[1:]))}"
    reply = Caller(locate(settings.host)).call("GET", target)
    width = len(reply["Titles"])
    rows = [[*row[: width - 1], " ".join(row[width - 1 :])] for row in reply.get("Processes") or ()]
    emit(table(reply["Titles"], rows))
    return 0


TOP = Command(
    "CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    (),
    _act,
    least=1,
    interspersed=False,
)
