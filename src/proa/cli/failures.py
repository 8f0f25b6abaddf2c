"""How failures are told on stderr, and with which exit status."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Command, UsageError
    from proa.errors import ProaError

__all__ = ["EXIT_OF_CODE", "complain", "program", "tell", "tell_usage"]

EXIT_OF_CODE = {"command-not-found": 127, "command-not-executable": 126}


def program() -> str:
    """The name we were called by: `docker` through a link of that name, where texts are to be as its scripts know."""
    return "docker" if sys.argv[0] == "docker" else "proa"


def complain(message: str, hint: str = "") -> None:
    """Write one failure to stderr, and what to do about it."""
    from proa.cli.terminal import printable

    sys.stdout.flush()
    prefix = "proa: "
    if program() == "docker":
        prefix = "Error: " if message.startswith("No such object") else "Error response from daemon: "
    text = f"{prefix}{message}\n" + (f"  hint: {hint}\n" if hint else "")
    sys.stderr.write(printable(text, 2))
    sys.stderr.flush()


def tell(error: ProaError, command: Command | None) -> int:
    """Tell a failure; returns the exit status it means for this command."""
    complain(error.message, error.hint)
    status = command.failure_status if command is not None else 1
    if status == 125:  # commands that run another: 126 and 127 say that it could not be executed or found
        return EXIT_OF_CODE.get(error.code, status)
    return status


def tell_usage(error: UsageError, command: Command | None) -> int:
    """Tell what is wrong with the command line; returns the exit status."""
    name, text, status = program(), str(error), error.status
    path = f"{name} {command.path}" if command is not None else name
    if name == "docker":
        text = text.replace("proa ", "docker ")
        if text.startswith("unknown command"):
            text, status = f"docker: {text}", 1
    sys.stderr.write(f"{text}\n\nRun '{path} --help' for more information\n")
    return status
