"""`proa container execs` and `proa container kill-exec`: what `proa exec` started."""

from __future__ import annotations

from proa.cli.many import for_each
from proa.cli.options import Command
from proa.cli.output import emit, table
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import query, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Row, Settings

__all__ = ["EXECS", "KILL_EXEC"]

KILL_ROWS: tuple[Row, ...] = (("signal", "s", "text", "string", "Signal to send to the process (default KILL)"),)
LIST_ROWS: tuple[Row, ...] = (
    ("all", "a", "flag", "", "Show those that have ended, too"),
    ("no-trunc", "", "flag", "", "Don't truncate output"),
    ("quiet", "q", "flag", "", "Only display IDs"),
)


def _list(settings: Settings, options: Options, words: list[str]) -> int:
    found = Caller(locate(settings.host)).call("GET", f"/proa/v1/containers/{quote(words[0])}/execs")
    rows = []
    for exec_ in found:
        if not (exec_["Running"] or options.flag("all")):
            continue
        process = exec_["ProcessConfig"]
        command = " ".join([process["entrypoint"], *process["arguments"]])
        full = options.flag("no-trunc")
        identity = exec_["ID"] if full else exec_["ID"][:12]
        ended = exec_["ExitCode"] is not None
        running = "running" if exec_["Pid"] else "starting"
        state = running if exec_["Running"] else f"exited ({exec_['ExitCode']})" if ended else "created"
        shown = command if full or len(command) <= 40 else command[:39] + "\u2026"
        rows.append([identity, str(exec_["Pid"] or ""), state, process.get("user", ""), shown])
    if options.flag("quiet"):
        emit("".join([f"{row[0]}\n" for row in rows]))
    else:
        emit(table(["EXEC ID", "PID", "STATE", "USER", "COMMAND"], rows))
    return 0


def _kill(settings: Settings, options: Options, words: list[str]) -> int:
    target = query(signal=options.text("signal", "KILL"))
    return for_each(settings, words, lambda word: ("POST", f"/proa/v1/exec/{quote(word)}/kill{target}"))


EXECS = Command(
    "[OPTIONS] CONTAINER", "List the commands that exec runs in a container", LIST_ROWS, _list, least=1, most=1
)
KILL_EXEC = Command("[OPTIONS] EXEC [EXEC...]", "Send a signal to a command that exec runs", KILL_ROWS, _kill, least=1)
