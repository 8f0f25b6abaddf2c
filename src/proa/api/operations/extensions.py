"""proa's own operations, under /proa/v1."""

from __future__ import annotations

import asyncio
import os
import time

import msgspec

from proa._version import __version__
from proa.api.messages import Outcome, Reply, Request, json_body, typed
from proa.api.operations.transfer_streams import Report, progress
from proa.api.routes import API_VERSION, MIN_API_VERSION, Route, dotted
from proa.api.service import Service
from proa.engine.types import PortBinding


async def status(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`GET /proa/v1/status`: which engine answers."""
    engine = service.engine
    return Reply(
        value={
            "Version": __version__,
            "ApiVersion": dotted(API_VERSION),
            "MinApiVersion": dotted(MIN_API_VERSION),
            "Pid": os.getpid(),
            "Root": str(engine.root),
            "Run": str(engine.run),
            "StartedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(service.started)),
            "UptimeSeconds": round(time.monotonic() - service.started_monotonic, 3),
            "Busy": await service.pools.quick(lambda: engine.busy),
            "Connections": service.connections(),
            "Transfers": service.pools.slow_running,
        }
    )


async def stop(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`POST /proa/v1/stop`: end the service; containers keep running."""
    asyncio.get_running_loop().call_soon(service.stop)
    return Reply(status=202, value={"Stopping": True})


async def boot(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`POST /proa/v1/boot`: start what shall run after the machine's boot; answered once each start was tried."""
    found = await service.pools.slow(service.engine.restarts.boot_and_wait)
    return Reply(value=[{"Id": c.id, "Name": c.name, "Status": c.state.status, "Error": c.state.error} for c in found])


async def usage(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`GET /proa/v1/usage`: allocated bytes of the data root, which add up to what du finds."""
    return Reply(value=await service.pools.slow(service.engine.system.usage))


async def check(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/check?repair=&quick=`: progress lines, each problem found as `aux`, last a summary as `aux`.

    X-Registry-Config, as docker build sends it: credentials by registry, to fetch what is damaged.
    """
    from proa.transfer.credentials import credentials_by_place

    credentials = credentials_by_place(request.headers.get("x-registry-config", ""))
    repair, quick = request.query.flag("repair"), request.query.flag("quick")

    def work(report: Report) -> None:
        from proa.transfer import ProgressEvent

        checked = service.engine.integrity.check(repair=repair, quick=quick, credentials=credentials, progress=report)
        report(ProgressEvent(aux={"Found": len(checked.problems), "Left": checked.left}))

    return await progress(service, work)


async def reload_networks(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`POST /proa/v1/networks/reload`: make bridges, addresses, rules and held ports true again."""
    networks = service.engine.networks
    await service.pools.change(networks.reconcile)
    return Reply(value={"Warnings": await service.pools.quick(networks.warnings)})


async def change_ports(service: Service, request: Request) -> Outcome:
    """`POST /proa/v1/containers/{id}/ports`: publish and unpublish ports, also of a container that runs.

    Add: as HostConfig.PortBindings; Remove: `80/tcp` or `[address:]8080:80/tcp`. Answers with the ports published now.
    """
    body = await json_body(request)
    add = typed(body.get("Add", {}), dict[str, list[PortBinding] | None], "Add")
    remove = typed(body.get("Remove", []), list[str], "Remove")
    record = await service.pools.change(service.engine.endpoints.change_ports, request["id"], add, remove)
    return Reply(value={"Ports": msgspec.to_builtins(record.ports)})


async def openapi(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`GET /proa/v1/openapi.json`: this document."""
    from proa.api.openapi import document  # it looks at every route, this one included

    return Reply(value=document(), content_type="application/json")


ROUTES = (
    Route("GET", "/proa/v1/openapi.json", openapi),
    Route("POST", "/proa/v1/networks/reload", reload_networks),
    Route("POST", "/proa/v1/containers/{id}/ports", change_ports),
    Route("POST", "/proa/v1/boot", boot),
    Route("POST", "/proa/v1/check", check),
    Route("GET", "/proa/v1/status", status),
    Route("GET", "/proa/v1/usage", usage),
    Route("POST", "/proa/v1/stop", stop),
)
