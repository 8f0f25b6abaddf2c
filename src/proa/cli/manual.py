"""The manual page proa(1), in man(7)'s macros, from the rows that the parser and help read."""

from __future__ import annotations

from proa._version import __version__
from proa.cli.commands import load
from proa.cli.options import GLOBALS
from proa.cli.table import COMMANDS, GROUPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Row

__all__ = ["manual"]


def manual() -> str:
    """The page as text for `man -l -`."""
    lines = [f'.TH PROA 1 "" "proa {__version__}" "User Commands"']
    lines += [".SH NAME", r"proa \- a container engine you install with pip"]
    lines += [".SH SYNOPSIS", ".B proa", "[\\fIOPTIONS\\fR] \\fICOMMAND\\fR"]
    lines += [".SH OPTIONS", *_options(GLOBALS), ".SH COMMANDS"]
    for name in _names():
        command = load(name)
        lines += [".SS", _plain(f"proa {name} {command.usage}".rstrip()), _plain(f"{command.summary}.")]
        others = [spelling for spelling in _spellings(name) if spelling != name]
        if others:
            lines += [".PP", _plain(f"Also: {', '.join(f'proa {spelling}' for spelling in others)}.")]
        lines += _options(command.rows)
    return "\n".join(lines) + "\n"


def _names() -> list[str]:
    return sorted(COMMANDS)


def _spellings(row: str) -> list[str]:
    return sorted(
        f"{group} {word}" for group, (_, words) in GROUPS.items() for word, named in words.items() if named == row
    )


def _options(rows: tuple[Row, ...]) -> list[str]:
    lines = []
    for long, short, kind, value, text in rows:
        flag = f"-{short}, --{long}" if short else f"--{long}"
        lines += [".TP", rf"\fB{_plain(flag)}\fR" + (f" {_plain(value)}" if kind != "flag" else ""), _plain(text)]
    return lines


def _plain(text: str) -> str:
    """Text without anything that roff would obey."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\\&" + escaped if escaped[:1] == "." else escaped
