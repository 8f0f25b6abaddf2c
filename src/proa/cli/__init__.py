"""The proa command line, a client of the engine's API.

`main` looks at the first word, finds its row in `proa.cli.commands`, imports that one module, parses that command's
options and runs it. Everything here counts in every command's start-up time, so this path imports nothing heavy of the
standard library.
"""

from __future__ import annotations

import sys
from posix import _exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["dispatch", "main"]


def main() -> NoReturn:
    """Run the command in sys.argv and leave the process with its exit status."""
    if sys.argv[1:2] == ["--as-docker"]:  # called by a link of that name
        sys.argv[:2] = ["docker"]
    status = dispatch(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or 1
    _keep_bundle()
    _exit(status)  # nothing is left to finalise: this saves the interpreter's shutdown


def _keep_bundle() -> None:
    """Write the bundle for the next command when it is missing or has become stale."""
    from proa import bundle

    if bundle.stale:
        from proa.cli.modules import COMMANDS, MODULES

        bundle.write(__file__.removesuffix("/proa/cli/__init__.py"), "proa.cli", MODULES, COMMANDS)


def dispatch(arguments: list[str]) -> int:
    """Run one command line and return its exit status; failures are told on stderr."""
    if arguments in (["--version"], ["-v"]):
        from proa._version import __version__

        as_docker = sys.argv[0] == "docker"
        sys.stdout.write(
            f"Docker version {__version__}, build proa\n" if as_docker else f"proa version {__version__}\n"
        )
        return 0
    from proa.cli.options import UsageError, take_globals

    command = None
    debug = False
    try:
        settings, arguments = take_globals(arguments)
        debug = settings.debug
        if settings.version:
            return dispatch(["--version"])
        if settings.help or not arguments:
            from proa.cli.help import overview

            return overview(arguments, asked=settings.help)
        from proa.cli.commands import find

        command, path, rest = find(arguments)
        if command is None:
            from proa.cli.help import group

            return group(path, rest)
        return command.call(settings, path, rest)
    except UsageError as error:
        from proa.cli.failures import tell_usage

        return tell_usage(error, command)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141  # as if SIGPIPE had ended us: whoever read our output has gone
    except Exception as error:
        from proa.errors import ProaError

        if debug or not isinstance(error, ProaError):
            raise
        from proa.cli.failures import tell

        return tell(error, command)
