"""The commands: a command's module is imported when it is the one."""

from __future__ import annotations

import sys

from proa.cli.options import Command, UsageError

__all__ = ["FREQUENT", "find", "load"]

# The rows of `proa.cli.table` that most command lines name: loading all of them takes 0.1 ms.
FREQUENT: dict[str, tuple[str, str, str]] = {
    "run": ("run", "RUN", "Create and run a new container from an image"),
    "exec": ("execute", "EXEC", "Execute a command in a running container"),
    "ps": ("ps", "PS", "List containers"),
}


def find(words: list[str]) -> tuple[Command | None, str, list[str]]:
    """The command that these words begin with, the words that named it, and the words after; None when help is asked.

    Raises UsageError when there is none of that name.
    """
    name = words[0]
    if name in FREQUENT:
        return load(name), name, words[1:]
    from proa.cli.table import COMMANDS, GROUPS

    if name in GROUPS:
        if len(words) < 2 or words[1].startswith("-"):
            return None, name, words[1:]
        row = GROUPS[name][1].get(words[1])
        if row is None:
            raise UsageError(f"unknown command: proa {name} {words[1]}{_near(words[1], list(GROUPS[name][1]))}")
        return load(row), f"{name} {words[1]}", words[2:]
    if name in COMMANDS:
        return load(name), name, words[1:]
    raise UsageError(f"unknown command: proa {name}{_near(name, [*COMMANDS, *GROUPS])}")


def load(row: str) -> Command:
    """Import the module of a row and give its command."""
    if row in FREQUENT:
        module, attribute, _ = FREQUENT[row]
    else:
        from proa.cli.table import COMMANDS

        module, attribute, _ = COMMANDS[row]
    full = f"proa.cli.commands.{module}"
    __import__(full)
    command = getattr(sys.modules[full], attribute)
    assert isinstance(command, Command)
    return command


def _near(word: str, words: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, words, 1)
    return f"\n\nDid you mean this?\n        {near[0]}" if near else ""
