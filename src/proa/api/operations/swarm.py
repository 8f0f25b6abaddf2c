"""What belongs to swarms and plugins, of which there are none: answered as by an engine that is in no swarm."""

from __future__ import annotations

from proa.api.messages import Outcome, Reply, Request
from proa.api.routes import Route
from proa.api.service import Service
from proa.errors import NotFound, Unavailable, Unsupported


async def no_swarm(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """503, in Docker's words."""
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
        "swarm and try again.",
        code="no-swarm",
    )


async def plugins(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """`GET /plugins`: none."""
    return Reply(value=[])


async def no_plugin(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """404 for the plugins there are not."""
    raise NotFound(f'plugin "{request["name"]}" not found', code="plugin-not-found", subject=request["name"])


async def no_plugins(service: Service, request: Request) -> Outcome:  # noqa: ARG001
    """501: nothing can be installed."""
    raise Unsupported("Docker's plugins are not supported", code="plugins-unsupported")


_SWARM = (
    *(("GET", "/swarm"), ("GET", "/swarm/unlockkey"), ("GET", "/nodes"), ("GET", "/services"), ("GET", "/tasks")),
    *(("POST", f"/swarm/{verb}") for verb in ("init", "join", "leave", "update", "unlock")),
    *(("GET", f"/{noun}/{{id}}") for noun in ("nodes", "services", "tasks")),
    *(("DELETE", f"/{noun}/{{id}}") for noun in ("nodes", "services")),
    *(("POST", f"/{noun}/{{id}}/update") for noun in ("nodes", "services", "secrets", "configs")),
    *(("POST", "/services/create"), ("GET", "/services/{id}/logs"), ("GET", "/tasks/{id}/logs")),
)

ROUTES = (
    *(Route(method, template, no_swarm) for method, template in _SWARM),
    Route("GET", "/plugins", plugins),
    Route("GET", "/plugins/privileges", no_plugins),
    Route("POST", "/plugins/pull", no_plugins),
    Route("POST", "/plugins/create", no_plugins),
    Route("GET", "/plugins/{name:path}/json", no_plugin),
    Route("DELETE", "/plugins/{name:path}", no_plugin),
    *(
        Route("POST", f"/plugins/{{name:path}}/{verb}", no_plugin)
        for verb in ("enable", "disable", "upgrade", "push", "set")
    ),
)
