"""One request for each of several objects, all under way at once, told in the order they were named."""

from __future__ import annotations

from proa.cli.failures import complain
from proa.cli.terminal import emit
from proa.client.caller import Caller
from proa.client.connection import Connection
from proa.client.endpoint import locate
from proa.errors import NotFound, NotModified, ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from proa.cli.options import Settings

__all__ = ["for_each"]

_AT_ONCE = 50


def for_each(
    settings: Settings,
    names: list[str],
    request: Callable[[str], tuple[str, str]],
    *,
    show: Callable[[str, bytes], str] = lambda name, _: name,
    missing_is_fine: bool = False,
    document: Any = None,
) -> int:
    """Send `request(name)` (method, target) for every name and print `show(name, reply)`; 1 if any failed.

    document: the JSON body of each request
    missing_is_fine: an object that is not there is told but does not count as a failure
    """
    caller = Caller(locate(settings.host))
    status = 0
    for start in range(0, len(names), _AT_ONCE):
        pending: list[tuple[str, Connection]] = []
        for name in names[start : start + _AT_ONCE]:
            method, target = request(name)
            pending.append((name, caller.begin(method, target, document)))
        for name, connection in pending:
            try:
                answered = caller.reply(connection)
                body = answered.body()
                caller.keep(answered)
            except NotModified:
                body = b""
            except NotFound as error:
                complain(error.message, error.hint)
                status = status if missing_is_fine else 1
                continue
            except ProaError as error:
                complain(error.message, error.hint)
                status = 1
                continue
            text = show(name, body)
            if text:
                emit(text + "\n")
    return status
