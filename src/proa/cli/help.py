"""Usage texts, from the same rows the parser reads."""

from __future__ import annotations

from proa.cli.failures import program
from proa.cli.terminal import emit, is_terminal, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Command, Row

__all__ = ["command_help", "group", "option_lines", "overview"]

_FIRST = 8  # rows of the table that everybody needs


def option_lines(rows: tuple[Row, ...]) -> str:
    """The `Options:` block."""
    lefts = []
    for long, short, kind, value, _ in rows:
        left = f"  {f'-{short}, ' if short else '    '}--{long}"
        lefts.append(left if kind == "flag" else f"{left} {value}")
    width = max(len(left) for left in lefts) + 3
    limit = max((size(1)[1] if is_terminal(1) else 80) - width, 30)
    out = []
    for left, row in zip(lefts, rows, strict=True):
        lines = _wrap(row[4], limit)
        out.append(left.ljust(width) + lines[0])
        out += [" " * width + line for line in lines[1:]]
    return "\n".join(out) + "\n"


def _wrap(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def command_help(command: Command) -> int:
    """Print a command's usage."""
    from proa.cli.options import HELP

    rows = (*command.rows, HELP)
    emit(f"Usage:  {program()} {command.path} {command.usage}\n\n{command.summary}\n\nOptions:\n{option_lines(rows)}")
    return 0


def group(name: str, rest: list[str]) -> int:
    """Print a group's commands; a group alone is not a command."""
    from proa.cli.table import COMMANDS, GROUPS

    summary, words = GROUPS[name]
    lines = [f"  {word:<12}{COMMANDS[row][2]}" for word, row in sorted(words.items())]
    emit(
        f"Usage:  {program()} {name} COMMAND\n\n{summary}\n\nCommands:\n"
        + "\n".join(lines)
        + f"\n\nRun '{program()} {name} COMMAND --help' for more information on a command.\n"
    )
    return 0 if rest else 125


def overview(words: list[str], *, asked: bool) -> int:
    """Print the usage of `proa`, or of the command that the words name."""
    from proa.cli.commands import find
    from proa.cli.options import GLOBALS
    from proa.cli.table import COMMANDS, GROUPS

    if words:
        command, path, rest = find(words)
        if command is None:
            return group(path, ["--help", *rest])
        command.path = path
        return command_help(command)
    single = [name for name in COMMANDS if " " not in name]
    first, others = single[:_FIRST], sorted(single[_FIRST:])
    emit(
        f"Usage:  {program()} [OPTIONS] COMMAND\n\nA container engine you install with pip\n\nCommon Commands:\n"
        + "".join([f"  {name:<12}{COMMANDS[name][2]}\n" for name in first])
        + "\nManagement Commands:\n"
        + "".join([f"  {name:<12}{summary}\n" for name, (summary, _) in sorted(GROUPS.items())])
        + "\nCommands:\n"
        + "".join([f"  {name:<12}{COMMANDS[name][2]}\n" for name in others])
        + "\nGlobal Options:\n"
        + option_lines(GLOBALS)
        + f"\nRun '{program()} COMMAND --help' for more information on a command.\n"
    )
    return 0 if asked else 125
