"""The operations of the API, one module per noun, each with its table of routes."""

from __future__ import annotations

from proa.api.operations import (
    archives,
    artifacts,
    containers,
    execs,
    extensions,
    images,
    lifecycle,
    networks,
    registries,
    run,
    secrets,
    sockets,
    streams,
    swarm,
    system,
    transfers,
    volumes,
)
from proa.api.routes import Route

#: Every route of the service. Order matters within a template's first segment: fixed words before variables.
ROUTES: tuple[Route, ...] = (
    *system.ROUTES,
    *containers.ROUTES,
    *archives.ROUTES,
    *lifecycle.ROUTES,
    *streams.ROUTES,
    *execs.ROUTES,
    *run.ROUTES,
    *registries.ROUTES,
    *transfers.ROUTES,
    *images.ROUTES,
    *networks.ROUTES,
    *volumes.ROUTES,
    *artifacts.ROUTES,
    *secrets.ROUTES,
    *swarm.ROUTES,
    *extensions.ROUTES,
    *sockets.ROUTES,
)
