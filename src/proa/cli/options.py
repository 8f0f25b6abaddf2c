"""Options as rows: what a command takes, read by the parser here, by help and by shell completion.

A row is `(long, short, kind, value, help)`, a constant that costs nothing to import:

    ("env", "e", "list", "list", "Set environment variables")

kind: "flag" (present, or --x=false), "text" (one value, the last wins), "list" (may be repeated), "int".
The syntax is Docker's: --name x, --name=x, -it, -eK=V, -e K, `--` ends options. Where a command runs another one
(`interspersed=False`), options end at the first word that is not one.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from proa.client.endpoint import Endpoint

    Row = tuple[str, str, str, str, str]
    Value = bool | str | list[str]

__all__ = ["Command", "Options", "Settings", "UsageError", "parse", "take_globals"]

HELP: Row = ("help", "", "flag", "", "Print usage")
GLOBALS: tuple[Row, ...] = (
    ("context", "c", "text", "string", "One of Docker's contexts, instead of --host"),
    ("debug", "D", "flag", "", "Show where in proa a failure happened"),
    HELP,
    ("host", "H", "text", "string", "The engine's socket: unix:///path or tcp://host:port"),
    ("tls", "", "flag", "", "Speak TLS on TCP; implied by --tlsverify"),
    ("tlscacert", "", "text", "path", "Trust certificates signed by this authority (default ~/.docker/ca.pem)"),
    ("tlscert", "", "text", "path", "The certificate to show (default ~/.docker/cert.pem)"),
    ("tlskey", "", "text", "path", "Its key (default ~/.docker/key.pem)"),
    ("tlsverify", "", "flag", "", "Speak TLS on TCP, with an engine whose certificate is valid only"),
    ("version", "v", "flag", "", "Print version information and quit"),
)

#: Those that say more than --host of where the engine is.
REMOTE = ("context", "tls", "tlscacert", "tlscert", "tlskey", "tlsverify")

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class UsageError(Exception):
    """The command line is wrong; `status` is the exit status, as docker has it (1 for a wrong number of words)."""

    def __init__(self, message: str, status: int = 125) -> None:
        super().__init__(message)
        self.status = status


class Options:
    """The options that were given, read by type; each name must be one of the command's rows."""

    __slots__ = ("_kinds", "_values")

    def __init__(self, rows: tuple[Row, ...]) -> None:
        self._kinds = {row[0]: row[2] for row in rows}
        self._values: dict[str, Value] = {}

    def flag(self, name: str, default: bool = False) -> bool:
        """Whether a flag is on."""
        value = self._get(name, "flag")
        return default if value is None else value is True

    def text(self, name: str, default: str = "") -> str:
        """The value of an option."""
        value = self._get(name, "text")
        return value if isinstance(value, str) else default

    def number(self, name: str, default: int = 0) -> int:
        """The value of a whole-number option."""
        value = self._get(name, "int")
        return int(value) if isinstance(value, str) else default

    def texts(self, name: str) -> list[str]:
        """The values of a repeatable option, in order."""
        value = self._get(name, "list")
        return value if isinstance(value, list) else []

    def given(self, name: str) -> bool:
        """Whether the option was on the command line at all."""
        if name not in self._kinds:
            raise KeyError(name)
        return name in self._values

    def put(self, name: str, text: str | None) -> None:
        """Store a value as the parser read it; raises UsageError when it does not fit the row's kind."""
        kind = self._kinds[name]
        if kind == "flag":
            if text is None or text in _TRUE:
                self._values[name] = True
            elif text in _FALSE:
                self._values[name] = False
            else:
                raise UsageError(f'invalid argument "{text}" for "--{name}" flag: not true or false')
            return
        assert text is not None
        if kind == "list":
            values = self._values.setdefault(name, [])
            assert isinstance(values, list)
            values.append(text)
            return
        if kind == "int" and not (text.isascii() and text.removeprefix("-").isdigit()):
            raise UsageError(f'invalid argument "{text}" for "--{name}" flag: not a whole number')
        self._values[name] = text

    def _get(self, name: str, kind: str) -> Value | None:
        if self._kinds[name] != kind:
            raise TypeError(f"option {name} is of kind {self._kinds[name]}, not {kind}")
        return self._values.get(name)


class Settings:
    """What comes before the command's name; `host` is for `proa.client.endpoint.locate`."""

    __slots__ = ("context", "debug", "help", "host", "version")

    def __init__(self) -> None:
        self.context = ""
        self.debug = False
        self.help = False
        self.host: str | Endpoint = ""
        self.version = False


class Command:
    """One command: its rows, how many words it takes, and the function that does it.

    act:          called with (settings, options, words); returns the exit status
    most:         -1 for any number of words
    failure_status: exit status when the engine refuses
    """

    __slots__ = (
        "act",
        "failure_status",
        "interspersed",
        "least",
        "most",
        "path",
        "rows",
        "summary",
        "usage",
    )

    def __init__(
        self,
        usage: str,
        summary: str,
        rows: tuple[Row, ...],
        act: Callable[[Settings, Options, list[str]], int],
        *,
        least: int = 0,
        most: int = -1,
        interspersed: bool = True,
        failure_status: int = 1,
    ) -> None:
        self.usage = usage
        self.summary = summary
        self.rows = rows
        self.act = act
        self.least = least
        self.most = most
        self.interspersed = interspersed
        self.failure_status = failure_status
        self.path = ""

    def call(self, settings: Settings, path: str, arguments: list[str]) -> int:
        """Parse the arguments and do it.

        Raises UsageError, and whatever the command's work raises.
        """
        self.path = path
        options, words = parse(self.rows, arguments, interspersed=self.interspersed)
        if options is None:
            from proa.cli.help import command_help

            return command_help(self)
        if len(words) < self.least or (self.most >= 0 and len(words) > self.most):
            raise UsageError(self._wrong_count(), 1)
        return self.act(settings, options, words)

    def _wrong_count(self) -> str:
        count = self.least
        if self.most == self.least:
            need = f"requires {count} argument{'' if count == 1 else 's'}" if count else "accepts no arguments"
        elif self.most < 0:
            need = f"requires at least {count} argument{'' if count == 1 else 's'}"
        else:
            need = f"requires {count} to {self.most} arguments"
        return f"'proa {self.path}' {need}\n\nUsage:  proa {self.path} {self.usage}"


def parse(
    rows: tuple[Row, ...], arguments: list[str], *, interspersed: bool = True
) -> tuple[Options | None, list[str]]:
    """Split a command's arguments into options and words; options are None when help was asked for.

    Raises UsageError for an unknown option, a missing value or a value of the wrong kind.
    """
    options = Options(rows)
    by_long = {row[0]: row for row in rows}
    by_short = {row[1]: row for row in rows if row[1]}
    words: list[str] = []
    position, count = 0, len(arguments)
    while position < count:
        argument = arguments[position]
        position += 1
        if argument == "--":
            words += arguments[position:]
            break
        if argument[:1] != "-" or argument == "-":
            words.append(argument)
            if not interspersed:
                words += arguments[position:]
                break
            continue
        if argument[:2] == "--":
            name, mark, value = argument[2:].partition("=")
            row = by_long.get(name)
            if row is None:
                if name == "help":
                    return None, words
                raise UsageError(f"unknown flag: --{name}")
            if mark or row[2] == "flag":
                options.put(name, value if mark else None)
                continue
            if position == count:
                raise UsageError(f"flag needs an argument: --{name}")
            options.put(name, arguments[position])
            position += 1
            continue
        cluster = argument[1:]
        while cluster:
            row = by_short.get(cluster[0])
            if row is None:
                if cluster[0] == "h":
                    return None, words
                raise UsageError(f"unknown shorthand flag: '{cluster[0]}' in {argument}")
            cluster = cluster[1:]
            if row[2] == "flag":
                if cluster[:1] == "=":
                    options.put(row[0], cluster[1:])
                    break
                options.put(row[0], None)
                continue
            if cluster:
                options.put(row[0], cluster.removeprefix("="))
            elif position == count:
                raise UsageError(f"flag needs an argument: '{row[1]}' in {argument}")
            else:
                options.put(row[0], arguments[position])
                position += 1
            break
    return options, words


def take_globals(arguments: list[str]) -> tuple[Settings, list[str]]:
    """Read what stands before the command's name.

    Raises UsageError as `parse` does, NotFound for a context that does not exist.
    """
    settings = Settings()
    if not arguments or arguments[0][:1] != "-":
        if sys.argv[0] == "docker":
            _follow(settings, arguments)
        return settings, arguments
    options, rest = parse(GLOBALS, arguments, interspersed=False)
    if options is None:
        settings.help = True
        return settings, rest
    settings.debug = options.flag("debug")
    settings.help = options.flag("help")
    settings.version = options.flag("version")
    settings.host = options.text("host")
    if any(options.given(name) for name in REMOTE):
        from proa.cli.remote import choose

        choose(settings, options)
    elif sys.argv[0] == "docker" and not settings.host:
        _follow(settings, rest)
    return settings, rest


def _follow(settings: Settings, arguments: list[str]) -> None:
    if arguments and arguments[0] != "context":  # which must work when the current one is gone
        from proa.cli.remote import follow

        follow(settings)
