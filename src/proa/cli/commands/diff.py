"""`proa diff`."""

from __future__ import annotations

from proa.cli.options import Command
from proa.cli.output import emit
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Settings

__all__ = ["DIFF"]

_MARKS = "CAD"


def _act(settings: Settings, _: Options, words: list[str]) -> int:
    changes = Caller(locate(settings.host)).call("GET", f"/containers/{quote(words[0])}/changes")
    emit("".join([f"{_MARKS[change['Kind']]} {change['Path']}\n" for change in changes or ()]))
    return 0


DIFF = Command(
    "CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    (),
    _act,
    least=1,
    most=1,
)
