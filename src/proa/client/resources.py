"""Networks and volumes: made, listed and removed; plain records, as they have no life of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proa.client.calls import decode, download, exchange, filters_text
from proa.client.flow import (
    AsyncTransport,
    Awaiting,
    Blocking,
    Exchange,
    Flow,
    Request,
    Stream,
    Transport,
    operation,
    stream,
)
from proa.client.http import query, quote
from proa.client.models import NetworkDetails, VolumeDetails
from proa.client.sources import Source, pieces

__all__ = ["AsyncNetworks", "AsyncVolumes", "Networks", "Volumes"]


class NetworksCore:
    """The operations on networks."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    @operation
    def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnets: Sequence[str] = (),
        ipv6: bool | None = None,
        internal: bool = False,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Flow[NetworkDetails]:
        """Make a network.

        driver: `bridge`, `macvlan` or `ipvlan`; subnets: in CIDR notation, at most one of IPv4 and one of IPv6, chosen
        when none is given; ipv6: None means where the host has it; options: of the driver, by Docker's names.
        Raises Conflict when the name is taken or a subnet clashes, Invalid, Unsupported.
        """
        document: dict[str, Any] = {
            "Name": name,
            "Driver": driver,
            "Internal": internal,
            "Options": dict(options or {}),
            "Labels": dict(labels or {}),
            "IPAM": {"Driver": "default", "Config": [{"Subnet": subnet} for subnet in subnets]},
        }
        if ipv6 is not None:
            document["EnableIPv6"] = ipv6
        yield from exchange("POST", "/networks/create", document)
        return decode((yield from exchange("GET", f"/networks/{quote(name)}")), NetworkDetails)

    @operation
    def get(self, name: str) -> Flow[NetworkDetails]:
        """The network of this name or id. Raises NotFound."""
        return decode((yield from exchange("GET", f"/networks/{quote(name)}")), NetworkDetails)

    @operation
    def list(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> Flow[list[NetworkDetails]]:
        """The networks."""
        body = yield from exchange("GET", f"/networks{query(filters=filters_text(filters))}")
        return decode(body, list[NetworkDetails])

    @operation
    def connect(
        self, name: str, container: str, *, aliases: Sequence[str] = (), ipv4: str = "", ipv6: str = ""
    ) -> Flow[None]:
        """Connect a container to a network, at once when it runs; aliases: further names it has there.

        Raises NotFound, Denied when it is in the network already, Conflict for an address in use, Invalid.
        """
        addresses = {key: text for key, text in (("IPv4Address", ipv4), ("IPv6Address", ipv6)) if text}
        endpoint = {"Aliases": [*aliases], "IPAMConfig": addresses}
        document = {"Container": container, "EndpointConfig": endpoint}
        yield from exchange("POST", f"/networks/{quote(name)}/connect", document)

    @operation
    def disconnect(self, name: str, container: str, *, force: bool = False) -> Flow[None]:
        """Disconnect a container from a network. Raises NotFound, Denied when it is not in it."""
        document = {"Container": container, "Force": force}
        yield from exchange("POST", f"/networks/{quote(name)}/disconnect", document)

    @operation
    def remove(self, name: str) -> Flow[None]:
        """Remove a network. Raises NotFound, Denied while containers are in it."""
        yield from exchange("DELETE", f"/networks/{quote(name)}")


class VolumesCore:
    """The operations on volumes."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    @operation
    def create(
        self, name: str = "", *, labels: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None
    ) -> Flow[VolumeDetails]:
        """Make a volume, with a random name when none is given; an existing one stays as it is.

        options: of the local driver: type, device and o as for mount(8), size, uid, gid, mode. Raises Invalid.
        """
        document = {"Name": name, "Labels": dict(labels or {}), "DriverOpts": dict(options or {})}
        return decode((yield from exchange("POST", "/volumes/create", document)), VolumeDetails)

    @operation
    def get(self, name: str) -> Flow[VolumeDetails]:
        """The volume of this name. Raises NotFound."""
        return decode((yield from exchange("GET", f"/volumes/{quote(name)}")), VolumeDetails)

    @operation
    def list(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> Flow[list[VolumeDetails]]:
        """The volumes."""
        body = yield from exchange("GET", f"/volumes{query(filters=filters_text(filters))}")
        return decode(body, dict[str, list[VolumeDetails] | None]).get("Volumes") or []

    @operation
    def remove(self, name: str, *, force: bool = False) -> Flow[None]:
        """Remove a volume. Raises NotFound, Conflict while a container uses it."""
        yield from exchange("DELETE", f"/volumes/{quote(name)}{query(force=force)}")

    @stream
    def export(self, name: str) -> Stream[bytes]:
        """The bytes of a tar archive of a volume. Raises NotFound, Conflict when a file changes meanwhile."""
        yield from download(Request("GET", f"/proa/v1/volumes/{quote(name)}/export"))

    @operation
    def import_(self, name: str, source: Source, *, replace: bool = False) -> Flow[VolumeDetails]:
        """Fill a volume, which is made if need be, from a tar archive: bytes, a path, an open file or pieces.

        Raises Conflict when it is not empty (unless `replace`) or in use, Invalid or Corrupt for the archive.
        """
        target = f"/proa/v1/volumes/{quote(name)}/import{query(replace=replace)}"
        reply = yield Exchange(Request("PUT", target, pieces(source)))
        return decode(reply.body, VolumeDetails)

    @operation
    def clone(self, name: str, new: str, *, labels: Mapping[str, str] | None = None) -> Flow[VolumeDetails]:
        """A copy of a volume under a new name. Raises NotFound, Conflict."""
        document = {"Name": new, "Labels": dict(labels or {})}
        return decode((yield from exchange("POST", f"/proa/v1/volumes/{quote(name)}/clone", document)), VolumeDetails)


class Networks(NetworksCore, Blocking):
    """`client.networks`."""

    _transport: Transport


class AsyncNetworks(NetworksCore, Awaiting):
    """`client.networks`."""

    _transport: AsyncTransport


class Volumes(VolumesCore, Blocking):
    """`client.volumes`."""

    _transport: Transport


class AsyncVolumes(VolumesCore, Awaiting):
    """`client.volumes`."""

    _transport: AsyncTransport
