"""Scoped sockets: add, list, remove. Only the engine's own sockets serve these."""

from __future__ import annotations

import msgspec

from proa.api.messages import NO_CONTENT, Outcome, Reply, Request, created, json_body, typed
from proa.api.routes import Route
from proa.api.service import Service
from proa.api.sockets.scoped import ScopedSocket, ScopedSockets
from proa.errors import Unsupported


def _sockets(service: Service) -> ScopedSockets:
    if service.sockets is None:
        raise Unsupported("this service has no scoped sockets", code="sockets-unsupported")
    return service.sockets


async def list_(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`GET /proa/v1/sockets`: each with its scope and how many clients it has, -1 when it could not be opened."""
    found = _sockets(service).list()
    return Reply(value=[{**msgspec.to_builtins(one), "Clients": clients} for one, clients in found])


async def add(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/sockets`: Path, Owner, Scope with ReadOnly, Labels, Allow."""
    wanted = typed(await json_body(request), ScopedSocket, "scoped socket")
    _sockets(service).add(wanted)
    return created(msgspec.to_builtins(wanted))


async def remove(service: Service, request: Request) -> Outcome:
    """`DELETE /proa/v1/sockets?path=`: serve a scoped socket no longer, and end its clients' connections."""
    _sockets(service).remove(request.query.text("path"))
    return NO_CONTENT


ROUTES = (
    Route("GET", "/proa/v1/sockets", list_),
    Route("POST", "/proa/v1/sockets", add),
    Route("DELETE", "/proa/v1/sockets", remove),
)
