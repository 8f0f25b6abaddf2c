"""`proa start`."""

from __future__ import annotations

from proa.cli.options import Command, UsageError
from proa.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Row, Settings

__all__ = ["START"]

ROWS: tuple[Row, ...] = (
    ("attach", "a", "flag", "", "Attach STDOUT/STDERR and forward signals"),
    ("detach-keys", "", "text", "string", "Override the key sequence for detaching a container"),
    ("interactive", "i", "flag", "", "Attach container's STDIN"),
    ("sig-proxy", "", "flag", "", "Proxy received signals to the process (default true)"),
)


def _act(settings: Settings, options: Options, words: list[str]) -> int:
    if not (options.flag("attach") or options.flag("interactive")):
        from proa.cli.many import for_each

        return for_each(settings, words, lambda name: ("POST", f"/containers/{quote(name)}/start"))
    if len(words) > 1:
        raise UsageError("you cannot start and attach multiple containers at once")
    from proa.cli.commands.attach import stay
    from proa.client.caller import Caller
    from proa.client.endpoint import locate

    caller = Caller(locate(settings.host))
    container = caller.call("GET", f"/containers/{quote(words[0])}/json")

    def begin() -> None:
        caller.fetch("POST", f"/containers/{container['Id']}/start")

    return stay(
        caller,
        container,
        stdin=options.flag("interactive"),
        keys_text=options.text("detach-keys"),
        proxy_signals=options.flag("sig-proxy", default=True),
        condition="removed" if container["HostConfig"].get("AutoRemove") else "next-exit",
        begin=begin,
    )


START = Command("[OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers", ROWS, _act, least=1)
