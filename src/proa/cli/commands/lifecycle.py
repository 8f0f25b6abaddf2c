"""Commands that do one thing to several containers: stop, restart, kill, rm, pause, unpause, wait, rename."""

from __future__ import annotations

from proa.cli.failures import complain
from proa.cli.many import for_each
from proa.cli.options import Command
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import query, quote
from proa.client.jsonlite import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Row, Settings

__all__ = ["KILL", "PAUSE", "RENAME", "RESTART", "RM", "STOP", "UNPAUSE", "WAIT"]

CONTAINERS = "[OPTIONS] CONTAINER [CONTAINER...]"

SIGNAL: Row = ("signal", "s", "text", "string", "Signal to send to the container")
STOP_ROWS: tuple[Row, ...] = (
    SIGNAL,
    ("time", "", "int", "int", "Same as --timeout"),
    ("timeout", "t", "int", "int", "Seconds to wait before killing the container"),
)
WAIT_ROWS: tuple[Row, ...] = (
    ("condition", "", "text", "string", "What to wait for: not-running, next-exit, removed, healthy or unhealthy"),
)
RM_ROWS: tuple[Row, ...] = (
    ("force", "f", "flag", "", "Force the removal of a running container (uses SIGKILL)"),
    ("volumes", "v", "flag", "", "Remove anonymous volumes associated with the container"),
)


def _stop_query(options: Options) -> str:
    seconds = None
    for name in ("time", "timeout"):
        if options.given(name):
            seconds = str(options.number(name))
    return query(signal=options.text("signal"), t=seconds)


def _stop(settings: Settings, options: Options, words: list[str]) -> int:
    tail = _stop_query(options)
    return for_each(settings, words, lambda name: ("POST", f"/containers/{quote(name)}/stop{tail}"))


def _restart(settings: Settings, options: Options, words: list[str]) -> int:
    tail = _stop_query(options)
    return for_each(settings, words, lambda name: ("POST", f"/containers/{quote(name)}/restart{tail}"))


def _kill(settings: Settings, options: Options, words: list[str]) -> int:
    tail = query(signal=options.text("signal", "KILL"))
    return for_each(settings, words, lambda name: ("POST", f"/containers/{quote(name)}/kill{tail}"))


def _pause(settings: Settings, _: Options, words: list[str]) -> int:
    return for_each(settings, words, lambda name: ("POST", f"/containers/{quote(name)}/pause"))


def _unpause(settings: Settings, _: Options, words: list[str]) -> int:
    return for_each(settings, words, lambda name: ("POST", f"/containers/{quote(name)}/unpause"))


def _rm(settings: Settings, options: Options, words: list[str]) -> int:
    force = options.flag("force")
    tail = query(force=force, v=options.flag("volumes"))
    return for_each(settings, words, lambda name: ("DELETE", f"/containers/{quote(name)}{tail}"), missing_is_fine=force)


def _wait(settings: Settings, options: Options, words: list[str]) -> int:
    tail = query(condition=options.text("condition"))
    failures = []

    def show(_: str, body: bytes) -> str:
        reply = loads(body)
        if reply.get("Error"):
            failures.append(reply["Error"]["Message"])
            complain(reply["Error"]["Message"])
            return ""
        return str(reply["StatusCode"])

    status = for_each(settings, words, lambda name: ("POST", f"/containers/{quote(name)}/wait{tail}"), show=show)
    return 1 if failures else status


def _rename(settings: Settings, _: Options, words: list[str]) -> int:
    Caller(locate(settings.host)).fetch("POST", f"/containers/{quote(words[0])}/rename{query(name=words[1])}")
    return 0


STOP = Command(CONTAINERS, "Stop one or more running containers", STOP_ROWS, _stop, least=1)
RESTART = Command(CONTAINERS, "Restart one or more containers", STOP_ROWS, _restart, least=1)
KILL = Command(CONTAINERS, "Kill one or more running containers", (SIGNAL,), _kill, least=1)
PAUSE = Command("CONTAINER [CONTAINER...]", "Pause all processes within one or more containers", (), _pause, least=1)
UNPAUSE = Command(
    "CONTAINER [CONTAINER...]", "Unpause all processes within one or more containers", (), _unpause, least=1
)
RM = Command(CONTAINERS, "Remove one or more containers", RM_ROWS, _rm, least=1)
WAIT = Command(
    CONTAINERS,
    "Block until one or more containers stop, then print their exit codes",
    WAIT_ROWS,
    _wait,
    least=1,
)
RENAME = Command("CONTAINER NEW_NAME", "Rename a container", (), _rename, least=2, most=2)
