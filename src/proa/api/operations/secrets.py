"""Secrets and configs, as on a swarm manager: create, list, inspect, delete. The data of a secret is never shown."""

from __future__ import annotations

import base64
import binascii
from functools import partial
from typing import Any

from proa.api.messages import NO_CONTENT, Outcome, Reply, Request, created, json_body
from proa.api.routes import Operation, Route
from proa.api.service import Service
from proa.engine.secrets import Kept, Secrets
from proa.errors import Invalid


def _store(service: Service, kind: str) -> Secrets:
    return service.engine.secrets if kind == "secret" else service.engine.configs


def _shape(kept: Kept, kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"Name": kept.name, "Labels": kept.labels}
    if kind == "config":
        spec["Data"] = base64.b64encode(kept.data).decode()
    return {
        "ID": kept.id,
        "Version": {"Index": 1},
        "CreatedAt": kept.created,
        "UpdatedAt": kept.created,
        "Spec": spec,
    }


async def create(kind: str, service: Service, request: Request) -> Outcome:
    """`POST /secrets/create`, `/configs/create`."""
    body = await json_body(request)
    name, labels, data = body.get("Name", ""), body.get("Labels") or {}, body.get("Data", "")
    if not (isinstance(name, str) and isinstance(data, str) and isinstance(labels, dict)):
        raise Invalid(f"invalid {kind}: Name and Data are texts, Labels maps texts", code="json-invalid")
    if body.get("Driver") or body.get("Templating"):
        raise Invalid(f"{kind} drivers and templates are not supported", code=f"{kind}-driver")
    try:
        raw = base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)
    except (ValueError, binascii.Error):
        raise Invalid(f"the Data of {kind} {name[:80]!r} is no base64", code="json-invalid") from None
    labels = {str(key): str(value) for key, value in labels.items()}
    return created({"ID": await service.pools.change(_store(service, kind).create, name, raw, labels)})


async def list_(kind: str, service: Service, request: Request) -> Outcome:
    """`GET /secrets`, `/configs`; filters: id, name, label."""
    found = await service.pools.quick(_store(service, kind).list, request.query.filters())
    return Reply(value=[_shape(kept, kind) for kept in found])


async def inspect(kind: str, service: Service, request: Request) -> Outcome:
    """`GET /secrets/{id}`, `/configs/{id}`."""
    return Reply(value=_shape(await service.pools.quick(_store(service, kind).get, request["id"]), kind))


async def remove(kind: str, service: Service, request: Request) -> Outcome:
    """`DELETE /secrets/{id}`, `/configs/{id}`."""
    await service.pools.change(_store(service, kind).remove, request["id"])
    return NO_CONTENT


def _routes(kind: str) -> tuple[Route, ...]:
    def bound(operation: Any) -> Operation:
        return partial(operation, kind)

    return (
        Route("GET", f"/{kind}s", bound(list_)),
        Route("POST", f"/{kind}s/create", bound(create)),
        Route("GET", f"/{kind}s/{{id}}", bound(inspect)),
        Route("DELETE", f"/{kind}s/{{id}}", bound(remove)),
    )


ROUTES = (*_routes("secret"), *_routes("config"))
