"""What may stand next on a command line, asked by the shells' completion scripts: commands, options, and names.

All three shells ask `proa completion words -- WORD...`, whose last word is the one being written (maybe empty), and get
lines of `candidate TAB description`. No line means: complete files. Names come from an engine that runs: asking starts
none.
"""

from __future__ import annotations

from proa.cli.commands import load
from proa.cli.options import GLOBALS, HELP, UsageError, take_globals
from proa.cli.table import COMMANDS, GROUPS
from proa.client.endpoint import Endpoint, locate
from proa.errors import ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from proa.cli.options import Command, Row
    from proa.client.caller import Caller

    Candidate = tuple[str, str]

__all__ = ["candidates"]

# What a word of a usage line, or an option's value, is the name of.
_NAMED = {
    "CONTAINER": ("container",),
    "IMAGE": ("image",),
    "NETWORK": ("network",),
    "VOLUME": ("volume",),
    "NAME|ID": ("container", "image", "network", "volume"),
}
_IMAGE_NAMES = ("push", "pull")  # their usage says NAME
_VALUES = {"network": ("network",), "volumes-from": ("container",)}
_SHELLS = (("bash", ""), ("zsh", ""), ("fish", ""))


def candidates(words: list[str]) -> list[Candidate]:
    """Everything that fits the last of the words, and what it means."""
    before, last = words[:-1], words[-1] if words else ""
    return [found for found in _all(before, last) if found[0].startswith(last)]


def _all(before: list[str], last: str) -> Iterator[Candidate]:
    host, rest, pending = _globals(before)
    if pending:
        return
    if not rest:
        yield from _options(GLOBALS) if last.startswith("-") else _commands()
        return
    name = rest.pop(0)
    if name in GROUPS:
        members = GROUPS[name][1]
        if not rest:
            yield from [("--help", "Print usage")] if last.startswith("-") else _members(members)
            return
        name = members.get(rest.pop(0), "")
    if name in COMMANDS:
        yield from _of_command(name, load(name), rest, last, host)


def _globals(words: list[str]) -> tuple[str | Endpoint, list[str], bool]:
    """Where the engine is, the words from the command on, and whether a value of an option is being written."""
    valued = {flag for row in GLOBALS if row[2] != "flag" for flag in (f"--{row[0]}", f"-{row[1]}")}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        if rest.pop(0) in valued:
            if not rest:
                return "", [], True
            rest.pop(0)
    try:
        settings, _ = take_globals(words[: len(words) - len(rest)])
    except (UsageError, ProaError):
        return "", rest, False  # the command will say what is wrong with it
    return settings.host, rest, False


def _of_command(name: str, command: Command, rest: list[str], last: str, host: str | Endpoint) -> Iterator[Candidate]:
    given = 0
    asks: Row | None = None  # the option whose value comes next
    by_flag = {flag: row for row in command.rows for flag in (f"--{row[0]}", f"-{row[1]}") if flag != "-"}
    ended = False
    for word in rest:
        if asks is not None:
            asks = None
        elif word == "--" and not ended:
            ended = True
        elif word.startswith("-") and word != "-" and not ended:
            row = by_flag.get(word)
            asks = row if row is not None and row[2] != "flag" else None
        else:
            given += 1
            ended = ended or not command.interspersed
    if asks is not None:
        yield from _names(_VALUES.get(asks[0], ()), host)
    elif last.startswith("-") and not ended:
        option, mark, _ = last.partition("=")
        if mark:
            yield from ((f"{option}={value}", text) for value, text in _names(_VALUES.get(option[2:], ()), host))
        else:
            yield from _options((*command.rows, HELP))
    elif name in ("completion", "help"):
        yield from () if given else _SHELLS if name == "completion" else _commands()
    elif name == "cp":
        yield from ((f"{found}:", text) for found, text in _names(("container",), host))
    elif not name.endswith(" create"):  # those ask for a new name
        yield from _names(_kinds(name, command, given), host)


def _kinds(name: str, command: Command, given: int) -> tuple[str, ...]:
    """What the next word is the name of, by the command's usage; `given` words stand before it."""
    places = [word for word in command.usage.split() if word != "[OPTIONS]"]
    if given >= len(places):
        if not places or "..." not in places[-1]:
            return ()
        given = len(places) - 1
    if name in _IMAGE_NAMES:
        return ("image",)
    place = places[given]
    for word, kinds in _NAMED.items():
        if word in place:
            return kinds
    return ()


def _commands() -> Iterator[Candidate]:
    both = [(name, summary) for name, (_, _, summary) in COMMANDS.items() if " " not in name]
    yield from sorted([*both, *((name, summary) for name, (summary, _) in GROUPS.items())])


def _members(members: dict[str, str]) -> Iterator[Candidate]:
    yield from sorted((word, COMMANDS[row][2]) for word, row in members.items())


def _options(rows: tuple[Row, ...]) -> Iterator[Candidate]:
    for long, short, _, _, text in rows:
        yield f"--{long}", text
        if short:
            yield f"-{short}", text


def _names(kinds: tuple[str, ...], host: str | Endpoint) -> Iterator[Candidate]:
    """The engine's names of these kinds; nothing when it does not answer."""
    if not kinds:
        return
    from proa.client.caller import Caller

    try:
        place = locate(host)
        caller = Caller(Endpoint(path=place.path, host=place.host, port=place.port, tls=place.tls))
        for kind in kinds:
            yield from sorted(_READ[kind](caller))
    except (ProaError, OSError):
        return


def _containers(caller: Caller) -> list[Candidate]:
    return [
        (r["Names"][0].lstrip("/"), r["Status"]) for r in caller.call("GET", "/containers/json?all=1") if r["Names"]
    ]


def _images(caller: Caller) -> list[Candidate]:
    return [(tag, "image") for r in caller.call("GET", "/images/json") for tag in r.get("RepoTags") or ()]


def _networks(caller: Caller) -> list[Candidate]:
    return [(r["Name"], f"{r['Driver']} network") for r in caller.call("GET", "/networks")]


def _volumes(caller: Caller) -> list[Candidate]:
    return [(r["Name"], "volume") for r in caller.call("GET", "/volumes").get("Volumes") or ()]


_READ = {"container": _containers, "image": _images, "network": _networks, "volume": _volumes}
