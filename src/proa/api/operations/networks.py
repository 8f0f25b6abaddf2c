"""Networks: make, list, inspect, connect, disconnect, remove and prune."""

from __future__ import annotations

from typing import Any

from proa.api.messages import NO_CONTENT, Outcome, Reply, Request, created, json_body, typed
from proa.api.routes import Route
from proa.api.service import Service
from proa.api.translate import networks as translate
from proa.engine.types import EndpointRequest
from proa.errors import Invalid, NotFound

_PREDEFINED = ("bridge", "host", "none")


async def list_(service: Service, request: Request) -> Outcome:
    """`GET /networks`; filters: name, id, driver, scope, label, dangling, type."""
    records = await service.pools.quick(service.engine.networks.list)
    filters = request.query.filters()
    shown = [(translate.network(record), len(record.containers)) for record in records]
    for name, values in filters.items():
        shown = [(network, used) for network, used in shown if _passes(network, used, name, values)]
    return Reply(value=[network for network, _ in shown])


def _passes(network: dict[str, Any], used: int, name: str, values: list[str]) -> bool:
    labels = network["Labels"]
    if name == "name":
        return any(value in network["Name"] for value in values)
    if name == "id":
        return any(network["Id"].startswith(value) for value in values)
    if name == "driver":
        return network["Driver"] in values
    if name == "scope":
        return network["Scope"] in values
    if name == "type":
        if not set(values) <= {"builtin", "custom"}:
            raise Invalid(f"invalid filter: 'type'='{values[0]}'", code="filter-invalid")
        return ("builtin" if network["Name"] in _PREDEFINED else "custom") in values
    if name == "dangling":
        dangling = network["Name"] not in _PREDEFINED and used == 0
        return any(dangling == (value in ("true", "1")) for value in values)
    if name == "label":
        return all(labels.get(k) == v if eq else k in labels for k, eq, v in (value.partition("=") for value in values))
    raise Invalid(f"invalid filter '{name}'", code="filter-invalid")


async def inspect(service: Service, request: Request) -> Outcome:
    """`GET /networks/{id}`."""
    engine = service.engine
    scope = request.query.text("scope")

    def work() -> dict[str, object]:
        record = engine.networks.get(request["id"])
        if scope and scope != record.scope:
            raise NotFound(f"network {request['id']} not found", code="network-not-found", subject=request["id"])
        return translate.network(record, {c.id: c.name for c in engine.containers.list(all=True)})

    return Reply(value=await service.pools.quick(work))


async def create(service: Service, request: Request) -> Outcome:
    """`POST /networks/create`."""
    wanted = translate.network_request(await json_body(request))
    record = await service.pools.change(service.engine.networks.create, wanted)
    return created({"Id": record.id, "Warning": ""})


async def connect(service: Service, request: Request) -> Outcome:
    """`POST /networks/{id}/connect`."""
    body = await json_body(request)
    endpoint = typed(body.get("EndpointConfig", {}), EndpointRequest, "EndpointConfig")
    container = typed(body.get("Container", ""), str, "Container")
    await service.pools.change(service.engine.endpoints.connect, request["id"], container, endpoint)
    return Reply(value=b"")


async def disconnect(service: Service, request: Request) -> Outcome:
    """`POST /networks/{id}/disconnect`."""
    body = await json_body(request)
    container = typed(body.get("Container", ""), str, "Container")
    force = typed(body.get("Force", False), bool, "Force")
    await service.pools.change(service.engine.endpoints.disconnect, request["id"], container, force=force)
    return Reply(value=b"")


async def remove(service: Service, request: Request) -> Outcome:
    """`DELETE /networks/{id}`."""
    await service.pools.change(service.engine.networks.remove, request["id"])
    return NO_CONTENT


async def prune(service: Service, request: Request) -> Outcome:
    """`POST /networks/prune`: what no container is to be in; the predefined networks always stay."""
    gone = await service.pools.change(service.engine.networks.prune, request.query.filters())
    return Reply(value={"NetworksDeleted": gone or None})


ROUTES = (
    Route("POST", "/networks/create", create),
    Route("POST", "/networks/prune", prune),
    Route("POST", "/networks/{id}/connect", connect),
    Route("POST", "/networks/{id}/disconnect", disconnect),
    Route("GET", "/networks", list_),
    Route("GET", "/networks/", list_),
    Route("GET", "/networks/{id}", inspect),
    Route("DELETE", "/networks/{id}", remove),
)
