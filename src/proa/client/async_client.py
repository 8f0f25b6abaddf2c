"""The engine as an object for asyncio: `connect_async()`; apart from `connect()`, as asyncio takes 60 ms to import."""

from __future__ import annotations

from typing import Self

from proa.client.artifacts import AsyncArtifacts, AsyncManifests
from proa.client.awaiting import AwaitingTransport
from proa.client.client import ClientCore
from proa.client.containers import AsyncContainers
from proa.client.endpoint import Endpoint, locate
from proa.client.flow import AsyncTransport, Awaiting
from proa.client.images import AsyncImages
from proa.client.resources import AsyncNetworks, AsyncVolumes
from proa.client.tls import Tls

__all__ = ["AsyncClient", "connect_async"]


class AsyncClient(ClientCore, Awaiting):
    """An engine; its operations are awaited. Belongs to one event loop."""

    def __init__(self, endpoint: Endpoint, *, start: bool = True) -> None:
        self._transport: AsyncTransport = AwaitingTransport(endpoint, start=start)
        self.endpoint = endpoint
        self.containers = AsyncContainers(self._transport)
        self.images = AsyncImages(self._transport)
        self.networks = AsyncNetworks(self._transport)
        self.volumes = AsyncVolumes(self._transport)
        self.manifests = AsyncManifests(self._transport)
        self.artifacts = AsyncArtifacts(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def connect_async(host: str = "", *, start: bool = True, tls: Tls | bool | None = None) -> AsyncClient:
    """As `connect`, for asyncio."""
    return AsyncClient(locate(host, tls), start=start)
