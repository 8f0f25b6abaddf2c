"""Networks and volumes as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from proa.engine.networks import NetworkRecord
    from proa.engine.volumes import Volume


def network(record: NetworkRecord, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """One entry of `GET /networks`; with the containers' names, by id, `GET /networks/{id}`."""
    containers = {
        container: {
            "Name": (names or {}).get(container, ""),
            "EndpointID": place.endpoint_id,
            "MacAddress": place.mac,
            "IPv4Address": f"{place.address}/{place.prefix}" if place.address else "",
            "IPv6Address": "",
        }
        for container, place in record.containers.items()
    }
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": record.created,
        "Scope": record.scope,
        "Driver": record.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": record.ipam or []},
        "Internal": record.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": containers if names is not None else {},
        "Options": record.options,
        "Labels": record.labels,
    }


def volume(record: Volume) -> dict[str, Any]:
    """One entry of `GET /volumes`, and `GET /volumes/{name}`."""
    return {
        "CreatedAt": record.created,
        "Driver": record.driver,
        "Labels": record.labels or None,
        "Mountpoint": record.mountpoint,
        "Name": record.name,
        "Options": record.options or None,
        "Scope": "local",
        **({"Status": {"Owner": msgspec.to_builtins(record.owner)}} if record.owner is not None else {}),
    }
