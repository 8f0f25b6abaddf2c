"""Networks and volumes as the API shows them."""

from __future__ import annotations

from typing import Any

from proa.engine.networks import NetworkRecord
from proa.engine.volumes import Volume


def network(record: NetworkRecord) -> dict[str, Any]:
    """One entry of `GET /networks`, and `GET /networks/{id}`."""
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
        "Containers": record.containers,
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
    }
