"""From a request to its outcome: version, route, operation, and a fence around all of it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from proa.api.messages import Hijack, Outcome, Reply, Request
from proa.api.routes import Router, decode_path, split_version
from proa.api.sockets.guard import admit
from proa.api.status import error_reply, logged_failure
from proa.errors import Internal, NotFound

if TYPE_CHECKING:
    from proa.api.service import Service

log = logging.getLogger("proa.api")


async def dispatch(router: Router, service: Service, request: Request) -> Outcome:
    """Answer one request. Never raises but for cancellation: a failure is a Reply, a defect is logged and a 500.

    `request.path` is as it came, still encoded; version, path and variables are filled in here.
    """
    try:
        request.version, request.path = split_version(decode_path(request.path))
        if request.method == "OPTIONS":
            return Reply(status=200)  # as Docker does, whatever it is about
        route, request.variables = router.find(request.method, request.path, request.version)
        if request.door is not None and request.door.scope is not None:
            await admit(service, request, route)
        return await route.operation(service, request)
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 the fence: whatever one request does, the process lives
        return failed(request, error)


def failed(request: Request, error: Exception) -> Reply:
    """The error reply, after logging what is our fault."""
    what = f"{request.method} {request.path[:200]}"
    failure = logged_failure(error, what)
    if not isinstance(failure, Internal | NotFound):
        log.debug("%s: %s", what, failure.message)
    return error_reply(failure)


def error_line(error: Exception) -> str:
    """The failure as one line for a connection that has left HTTP, worded as Docker writes it there."""
    return f"{logged_failure(error, 'hijacked connection').message}\r\n"


__all__ = ["Hijack", "dispatch", "error_line", "failed"]
