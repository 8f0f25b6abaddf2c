"""`proa attach`, and the conversation that `proa start -a` has too."""

from __future__ import annotations

from proa.cli.foreground import Outcome, SignalProxy, carry, require_terminal
from proa.cli.options import Command
from proa.cli.session import detach_keys
from proa.client.caller import Caller
from proa.client.connection import Connection
from proa.client.endpoint import locate
from proa.client.http import query, quote
from proa.errors import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["ATTACH", "stay"]

ROWS: tuple[Row, ...] = (
    ("detach-keys", "", "text", "string", "Override the key sequence for detaching a container"),
    ("no-stdin", "", "flag", "", "Do not attach STDIN"),
    ("sig-proxy", "", "flag", "", "Proxy all received signals to the process (default true)"),
)


def stay(
    caller: Caller,
    container: dict[str, Any],
    *,
    stdin: bool,
    keys_text: str,
    proxy_signals: bool,
    condition: str,
    begin: Callable[[], None] | None = None,
) -> int:
    """Attach, do `begin` once attached, converse; returns the container's exit status, 0 when detached."""
    endpoint = caller.endpoint
    identity, tty = container["Id"], bool(container["Config"]["Tty"])
    stdin = stdin and bool(container["Config"]["OpenStdin"])
    keys = None
    if tty and stdin:
        require_terminal(tty=tty, interactive=stdin)
        keys = detach_keys(keys_text)
    path = f"/containers/{identity}"
    attaching = Connection.open(endpoint)
    target = query(stream=True, stdin=stdin, stdout=True, stderr=True, detachKeys=keys_text)
    attaching.send("POST", f"{path}/attach{target}", upgrade=True)
    outcome = Outcome(endpoint, identity, condition)
    attaching = caller.reply(attaching)
    outcome.begun()
    proxy = SignalProxy(endpoint, identity) if proxy_signals and not tty else None
    if begin is not None:
        begin()
    if proxy is not None:
        proxy.started()
    return carry(attaching, outcome, endpoint, path, tty=tty, stdin=stdin, keys=keys)


def _act(settings: Settings, options: Options, words: list[str]) -> int:
    caller = Caller(locate(settings.host))
    container = caller.call("GET", f"/containers/{quote(words[0])}/json")
    state = container["State"]
    if not state["Running"] or state.get("Paused"):
        what = "a paused container, unpause it first" if state.get("Paused") else "a stopped container, start it first"
        raise Conflict(f"you cannot attach to {what}", code="container-not-running", subject=words[0])
    return stay(
        caller,
        container,
        stdin=not options.flag("no-stdin"),
        keys_text=options.text("detach-keys"),
        proxy_signals=options.flag("sig-proxy", default=True),
        condition="not-running",
    )


ATTACH = Command(
    "[OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    ROWS,
    _act,
    least=1,
    most=1,
)
