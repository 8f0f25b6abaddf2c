"""The SDK: talk to an engine, synchronously or asynchronously, with types.

Importing this package is cheap; what it exports is imported when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.client.async_client import AsyncClient, connect_async
    from proa.client.client import Client, connect
    from proa.client.container import AsyncContainer, Container
    from proa.client.creation import Healthcheck
    from proa.client.images import AsyncImage, Image
    from proa.client.models import (
        Change,
        ContainerDetails,
        Event,
        ExecCommand,
        ExecDetails,
        ExecResult,
        Health,
        ImageDetails,
        ImageLayer,
        Info,
        NetworkDetails,
        Output,
        PathStat,
        ProcessTable,
        Progress,
        PruneResult,
        RunResult,
        Version,
        VolumeDetails,
    )
    from proa.client.sessions import AsyncSession, Session
    from proa.client.stats import Stats
    from proa.client.tls import Tls

__all__ = [
    "connect",
    "connect_async",
    "Client",
    "AsyncClient",
    "Container",
    "AsyncContainer",
    "Image",
    "AsyncImage",
    "Session",
    "AsyncSession",
    "Change",
    "ContainerDetails",
    "Event",
    "ExecCommand",
    "ExecDetails",
    "ExecResult",
    "Health",
    "Healthcheck",
    "ImageDetails",
    "ImageLayer",
    "Info",
    "NetworkDetails",
    "Output",
    "PathStat",
    "ProcessTable",
    "Progress",
    "PruneResult",
    "RunResult",
    "Stats",
    "Tls",
    "Version",
    "VolumeDetails",
]

_MODULES = {
    "connect": "client",
    "connect_async": "async_client",
    "Client": "client",
    "AsyncClient": "async_client",
    "Container": "container",
    "AsyncContainer": "container",
    "Image": "images",
    "AsyncImage": "images",
    "Session": "sessions",
    "AsyncSession": "sessions",
    "Healthcheck": "creation",
    "Stats": "stats",
    "Tls": "tls",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'models')}"), name)
    globals()[name] = value
    return value
