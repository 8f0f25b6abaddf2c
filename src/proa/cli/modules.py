"""Which modules the common commands need: what `proa.bundle` puts into one file.

Each after those it imports; a test holds the lists complete and in order.
"""

from __future__ import annotations

__all__ = ["COMMANDS", "MODULES"]

_ALWAYS = ("__future__", "proa", "proa.cli")
_FIRST = (
    *(*_ALWAYS, "proa.cli.options", "proa.cli.commands", "proa.client"),
    *("proa.client.endpoint", "proa.client.http", "proa.client.connection", "proa.client.jsonlite"),
    "proa.client.caller",
)
_EXEC = (*_FIRST, "proa.cli.commands.execute")
# What `exec` loads while it waits.
_MEANWHILE = ("proa.client.frames", "proa.cli.session", "proa.errors")
COMMANDS = {
    "": _ALWAYS,
    "exec": _EXEC,
    "ps": (*_FIRST, "proa.cli.commands.ps", "proa.cli.terminal", "proa.cli.output"),
    "run": (
        *(*_FIRST, "proa.errors", "proa.client.failures", "proa.cli.container_rows", "proa.cli.values"),
        *("proa.cli.container_spec", "proa.cli.commands.run"),
    ),
}
MODULES = tuple(
    dict.fromkeys(
        [
            *(*_EXEC, *_MEANWHILE),
            *[name for names in COMMANDS.values() for name in names],
            *("proa._version", "proa.cli.failures", "proa.cli.foreground", "proa.cli.pump", "proa.cli.table"),
        ]
    )
)
