"""`proa help`."""

from __future__ import annotations

from proa.cli.help import overview
from proa.cli.options import Command
from proa.cli.terminal import emit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Settings

__all__ = ["HELP"]


def _act(_: Settings, options: Options, words: list[str]) -> int:
    if options.flag("man"):
        from proa.cli.manual import manual

        emit(manual())
        return 0
    return overview(words, asked=True)


HELP = Command(
    "[OPTIONS] [COMMAND]",
    "Show the usage of a command",
    (("man", "", "flag", "", "Print every command as a manual page: proa help --man | man -l -"),),
    _act,
)
