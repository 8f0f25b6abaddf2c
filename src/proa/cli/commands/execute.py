"""`proa exec`: one request whose stream ends with the exit status; for a terminal one creates it, another starts it."""

from __future__ import annotations

from proa.cli.options import Command
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["EXEC"]

ROWS: tuple[Row, ...] = (
    ("detach", "d", "flag", "", "Detached mode: run command in the background"),
    ("detach-keys", "", "text", "string", "Override the key sequence for detaching a container"),
    ("end-with-client", "", "flag", "", "End the command when this client ends or loses its connection"),
    ("env", "e", "list", "list", "Set environment variables"),
    ("env-file", "", "list", "list", "Read in a file of environment variables"),
    ("interactive", "i", "flag", "", "Keep STDIN open even if not attached"),
    ("privileged", "", "flag", "", "Give extended privileges to the command"),
    ("tty", "t", "flag", "", "Allocate a pseudo-TTY"),
    ("user", "u", "text", "string", "Username or UID (format: <name|uid>[:<group|gid>])"),
    ("workdir", "w", "text", "string", "Working directory inside the container"),
)


def _document(options: Options, command: list[str], *, detach: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "Cmd": command,
        "AttachStdin": options.flag("interactive") and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Tty": options.flag("tty"),
    }
    if options.given("env") or options.given("env-file"):
        from proa.cli.values import variables, variables_of_files

        document["Env"] = variables_of_files(options.texts("env-file"), "env-file") + variables(options.texts("env"))
    for name, key in (("user", "User"), ("workdir", "WorkingDir"), ("detach-keys", "DetachKeys")):
        if options.given(name):
            document[key] = options.text(name)
    for name, key in (("privileged", "Privileged"), ("end-with-client", "EndWithClient")):
        if options.flag(name):
            document[key] = True
    return document


def _act(settings: Settings, options: Options, words: list[str]) -> int:
    detach, tty = options.flag("detach"), options.flag("tty")
    stdin = options.flag("interactive") and not detach
    keys = None
    console: dict[str, Any] = {}
    if tty and not detach:
        from proa.cli.foreground import require_terminal
        from proa.cli.session import detach_keys
        from proa.cli.terminal import size

        require_terminal(tty=tty, interactive=stdin)
        keys = detach_keys(options.text("detach-keys")) if stdin else None
        rows, columns = size(1)
        if rows and columns:
            console = {"ConsoleSize": [rows, columns]}
    caller = Caller(locate(settings.host))
    document = _document(options, words[1:], detach=detach)
    if not (tty or detach):
        status = _run(caller, words[0], document, 0 if stdin else None)
        if status is not None:
            return status
    from proa.cli.session import converse
    from proa.client.frames import Demultiplexer
    from proa.errors import ProaError

    identity = caller.call("POST", f"/containers/{quote(words[0])}/exec", {**document, **console})["Id"]
    path = f"/exec/{identity}"
    try:
        start = {"Detach": detach, "Tty": tty, **console}
        connection = caller.open("POST", f"{path}/start", start, upgrade=not detach)
    except ProaError as error:
        from proa.cli.failures import complain
        from proa.cli.foreground import exit_status_of_start

        complain(error.message, error.hint)
        return exit_status_of_start(error)
    if detach:
        connection.body()
        return 0
    if not tty:
        ended = converse(connection, demultiplexer=Demultiplexer(), stdin=0 if stdin else None)
    else:
        from proa.cli.foreground import follow_size
        from proa.cli.terminal import RawTerminal

        with RawTerminal(0):
            follow_size(caller.endpoint, path)
            ended = converse(connection, demultiplexer=None, stdin=0 if stdin else None, keys=keys)
    connection.close()
    return _status(caller, identity) if ended else 0


def _run(caller: Caller, container: str, document: dict[str, Any], stdin: int | None) -> int | None:
    """Create and start in one; returns the exit status, None when the engine is older than this command."""
    connection = caller.begin("POST", f"/proa/v1/containers/{quote(container)}/exec", document, upgrade=True)
    # The engine is at work from here on: time to load what its answer takes.
    from proa.cli.session import converse
    from proa.client.frames import Demultiplexer
    from proa.errors import NotFound

    try:
        connection = caller.reply(connection)
    except NotFound as error:
        if error.message == "page not found":
            return None
        raise
    demultiplexer = Demultiplexer()
    converse(connection, demultiplexer=demultiplexer, stdin=stdin)
    status = demultiplexer.exit_status
    if status is None:  # it was not started, or its monitor has been killed
        status = _status(caller, connection.head().headers["exec-id"])
    connection.close()
    return status


def _status(caller: Caller, identity: str) -> int:
    status = caller.call("GET", f"/exec/{identity}/json")["ExitCode"]
    if status is None:
        from proa.errors import Internal

        raise Internal("the exit status of the command is not known", code="exit-status-lost")
    return int(status)


EXEC = Command(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    ROWS,
    _act,
    least=2,
    interspersed=False,
)
