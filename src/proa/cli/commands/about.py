"""`proa help`."""

from __future__ import annotations

from proa.cli.help import overview
from proa.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Settings

__all__ = ["HELP"]


def _act(_: Settings, __: Options, words: list[str]) -> int:
    return overview(words, asked=True)


HELP = Command("[COMMAND]", "Show the usage of a command", (), _act)
