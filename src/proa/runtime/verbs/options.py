"""Options of the OCI runtime command line, as its callers write them.

runc's callers are the specification: `--name value`, `--name=value`, `-x value`; flags may have a value (`--all=true`).
"""

from __future__ import annotations

from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Options", "Settings", "parse", "take_globals"]

# Kinds of options: how often and whether with a value.
FLAG, VALUE, LIST = "flag", "value", "list"

_GLOBALS = {
    "--root": VALUE,
    "--log": VALUE,
    "--log-format": VALUE,
    "--debug": FLAG,
    "--systemd-cgroup": FLAG,
    "--cgroup-manager": VALUE,
    "--rootless": VALUE,
    "--criu": VALUE,
    "--help": FLAG,
    "-h": "--help",
    "--version": FLAG,
    "-v": "--version",
}


class Options:
    """What was given, by long name without dashes; flags are booleans, lists are lists of strings."""

    def __init__(self, flags: set[str], values: dict[str, str], lists: dict[str, list[str]]) -> None:
        self._flags = flags
        self._values = values
        self._lists = lists

    def flag(self, name: str) -> bool:
        """Whether a flag was given."""
        return name in self._flags

    def value(self, name: str, default: str = "") -> str:
        """The value of an option; of several the last."""
        return self._values.get(name, default)

    def given(self, name: str) -> bool:
        """Whether an option with a value was given."""
        return name in self._values

    def values(self, name: str) -> list[str]:
        """Every value of an option that may be repeated."""
        return self._lists.get(name, [])

    def number(self, name: str, default: int = 0) -> int:
        """The value of an option as a number. Raises Invalid."""
        return integer(self._values[name], f"--{name}") if name in self._values else default


class Settings:
    """The options before the verb.

    root:            the directory of this caller's containers.
    log, log_format: where and how failures are told beside stderr.
    cgroup_manager:  cgroupfs, or disabled: then containers stay in the caller's cgroups.
    """

    __slots__ = ("cgroup_manager", "debug", "log", "log_format", "root")

    def __init__(self, root: str, log: str, log_format: str, cgroup_manager: str, *, debug: bool) -> None:
        self.root = root
        self.log = log
        self.log_format = log_format
        self.cgroup_manager = cgroup_manager
        self.debug = debug


def integer(text: str, what: str) -> int:
    """A decimal number of ASCII digits. Raises Invalid."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 19:
        raise Invalid(f"{what} needs a number, not `{text}`", code="usage")
    return int(text)


def parse(table: dict[str, str], words: Sequence[str], *, interspersed: bool = True) -> tuple[Options, list[str]]:
    """Sort `words` by a table from option to its kind, or from a short name to the long one.

    Returns the options and the other words; unless `interspersed`, the first of those ends the options, as `--` does.
    Raises Invalid.
    """
    flags: set[str] = set()
    values: dict[str, str] = {}
    lists: dict[str, list[str]] = {}
    rest: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "--":
            rest += words[index:]
            break
        if word[:1] != "-" or word == "-" or word[1:].isdecimal():
            rest.append(word)
            if interspersed:
                continue
            rest += words[index:]
            break
        name, equals, value = word.partition("=")
        if name[:2] != "--" and name not in table and "-" + name in table:
            name = "-" + name  # one dash will do, as in Go
        kind = table.get(name, "")
        if kind[:1] == "-":
            name = kind
            kind = table[name]
        if not kind:
            raise Invalid(f"unknown option `{word}`", code="usage", subject=word)
        key = name.lstrip("-")
        if kind == FLAG:
            if not equals or value in ("true", "1"):
                flags.add(key)
            elif value not in ("false", "0"):
                raise Invalid(f"option {name} is on or off, not `{value}`", code="usage", subject=word)
            continue
        if not equals:
            if index == len(words):
                raise Invalid(f"option {name} needs a value", code="usage", subject=word)
            value = words[index]
            index += 1
        if kind == LIST:
            lists.setdefault(key, []).append(value)
        else:
            values[key] = value
    return Options(flags, values, lists), rest


def take_globals(words: Sequence[str], default_root: str) -> tuple[Settings, Options, list[str]]:
    """The options before the verb, and what is left: the verb and its words. Raises Invalid."""
    given, rest = parse(_GLOBALS, words, interspersed=False)
    log_format = given.value("log-format", "text")
    if log_format not in ("text", "json"):
        raise Invalid(f"unknown log format `{log_format}`, there are text and json", code="usage")
    manager = given.value("cgroup-manager", "systemd" if given.flag("systemd-cgroup") else "cgroupfs")
    settings = Settings(
        given.value("root") or default_root, given.value("log"), log_format, manager, debug=given.flag("debug")
    )
    return settings, given, rest
