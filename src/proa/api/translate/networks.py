"""Networks and volumes as the API shows them, and the requests about networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from proa.api.messages import typed
from proa.engine.network_records import NetworkRequest, Pool

if TYPE_CHECKING:
    from proa.engine.network_records import NetworkRecord
    from proa.engine.volumes import Volume


def network(record: NetworkRecord, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """One entry of `GET /networks`; with the containers' names, by id, `GET /networks/{id}`."""
    containers = {
        container: {
            "Name": (names or {}).get(container, ""),
            "EndpointID": place.endpoint_id,
            "MacAddress": place.mac,
            "IPv4Address": f"{place.address}/{place.prefix}" if place.address else "",
            "IPv6Address": f"{place.address6}/{place.prefix6}" if place.address6 else "",
        }
        for container, place in record.containers.items()
    }
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": record.created,
        "Scope": record.scope,
        "Driver": record.driver,
        "EnableIPv4": record.ipv4,
        "EnableIPv6": record.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": record.ipam_options,
            "Config": [_pool(pool) for pool in record.pools],
        },
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": containers if names is not None else {},
        "Options": record.options,
        "Labels": record.labels,
    }


def _pool(pool: Pool) -> dict[str, Any]:
    out: dict[str, Any] = {"Subnet": pool.subnet}
    if pool.ip_range:
        out["IPRange"] = pool.ip_range
    if pool.gateway:
        out["Gateway"] = pool.gateway
    if pool.reserved:
        out["AuxiliaryAddresses"] = pool.reserved
    return out


def network_request(body: Mapping[str, Any]) -> NetworkRequest:
    """The body of `POST /networks/create`. Raises Invalid naming the member that is wrong."""
    ipam = typed(body.get("IPAM", {}), dict[str, Any], "IPAM")
    source = typed(body.get("ConfigFrom", {}), dict[str, Any], "ConfigFrom")
    flags = {
        name: typed(body.get(key), bool | None, key)  # type: ignore[arg-type]
        for name, key in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6"))
    }
    return NetworkRequest(
        name=typed(body.get("Name", ""), str, "Name"),
        driver=typed(body.get("Driver", ""), str, "Driver"),
        internal=typed(body.get("Internal", False), bool, "Internal"),
        attachable=typed(body.get("Attachable", False), bool, "Attachable"),
        ingress=typed(body.get("Ingress", False), bool, "Ingress"),
        config_only=typed(body.get("ConfigOnly", False), bool, "ConfigOnly") or bool(source.get("Network")),
        ipv4=flags["ipv4"],
        ipv6=flags["ipv6"],
        ipam_driver=typed(ipam.get("Driver", ""), str, "IPAM.Driver"),
        ipam_options=typed(ipam.get("Options"), dict[str, str] | None, "IPAM.Options"),  # type: ignore[arg-type]
        pools=typed(ipam.get("Config", []), list[Pool], "IPAM.Config"),
        options=typed(body.get("Options", {}), dict[str, str], "Options"),
        labels=typed(body.get("Labels", {}), dict[str, str], "Labels"),
        scope=typed(body.get("Scope", ""), str, "Scope"),
    )


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
