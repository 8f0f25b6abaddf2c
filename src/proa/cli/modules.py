"""Which modules the common commands need: what `proa.bundle` puts into one file.

Each after those it imports; a test holds the lists complete and in order.
"""

from __future__ import annotations

__all__ = ["COMMANDS", "LATER"]

_ALWAYS = ("__future__", "proa", "proa.cli")
_FIRST = (
    *(*_ALWAYS, "proa.errors", "proa.cli.options", "proa.cli.commands", "proa.client"),
    *("proa.client.endpoint", "proa.client.http", "proa.client.connection", "proa.client.jsonlite"),
    *("proa.client.failures", "proa.client.caller"),
)
COMMANDS = {
    "": _ALWAYS,
    "exec": (*_FIRST, "proa.client.frames", "proa.cli.session", "proa.cli.commands.execute"),
    "ps": (*_FIRST, "proa.cli.commands.ps", "proa.cli.terminal", "proa.cli.output"),
    "run": (*_FIRST, "proa.cli.container_rows", "proa.cli.values", "proa.cli.container_spec", "proa.cli.commands.run"),
}
LATER = ("proa._version", "proa.cli.failures", "proa.cli.foreground", "proa.cli.pump")
