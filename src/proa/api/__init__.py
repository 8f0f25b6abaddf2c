"""The engine service: the Docker Engine API on a socket.

How one request travels:

    connection   bytes of one client -> HTTP messages (aiohttp's parser; keeps what follows an upgrade)
    server       HTTP message -> Request; Reply | Stream | Hijack -> bytes
    dispatch     Request -> version, route, operation; every failure -> one error Reply
    operations   one async function per route: calls the engine in a pool, never blocks the loop
    translate    the engine's records -> the JSON Docker's clients expect

`main` is the program; `python -I -m proa.api --root R --run D` runs it.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the engine service until it is told to stop; ends the process with its exit status."""
    from proa.api.program import run

    raise SystemExit(run(argv))
