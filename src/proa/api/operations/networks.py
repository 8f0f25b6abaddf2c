"""Networks: list, inspect and prune."""

from __future__ import annotations

from proa.api.messages import Outcome, Reply, Request
from proa.api.routes import Route
from proa.api.service import Service
from proa.api.translate import networks as translate
from proa.errors import Invalid


async def list_(service: Service, request: Request) -> Outcome:
    """`GET /networks`; filters: name, id, driver, scope, label, dangling, type."""
    records = await service.pools.quick(service.engine.networks.list)
    shown = [translate.network(record) for record in records]
    for name, values in request.query.filters().items():
        shown = [network for network in shown if _passes(network, name, values)]
    return Reply(value=shown)


def _passes(network: dict[str, object], name: str, values: list[str]) -> bool:
    labels = network["Labels"]
    assert isinstance(labels, dict)
    if name == "name":
        return any(value in str(network["Name"]) for value in values)
    if name == "id":
        return any(str(network["Id"]).startswith(value) for value in values)
    if name == "driver":
        return network["Driver"] in values
    if name == "scope":
        return network["Scope"] in values
    if name == "type":
        return "builtin" in values
    if name == "dangling":
        return all(value in ("false", "0") for value in values)
    if name == "label":
        return all(labels.get(k) == v if eq else k in labels for k, eq, v in (value.partition("=") for value in values))
    raise Invalid(f"invalid filter '{name}'", code="filter-invalid")


async def inspect(service: Service, request: Request) -> Outcome:
    """`GET /networks/{id}`."""
    engine = service.engine

    def work() -> dict[str, object]:
        record = engine.networks.get(request["id"])
        return translate.network(record, {c.id: c.name for c in engine.containers.list()})

    return Reply(value=await service.pools.quick(work))


async def prune(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`POST /networks/prune`: the predefined networks always stay."""
    return Reply(value={"NetworksDeleted": None})


ROUTES = (
    Route("POST", "/networks/prune", prune),
    Route("GET", "/networks", list_),
    Route("GET", "/networks/", list_),
    Route("GET", "/networks/{id}", inspect),
)
