"""Connect containers: bridges, addresses, nftables rules and published ports."""

from __future__ import annotations

from proa.network.bridge import BridgeNetwork
from proa.network.endpoint import AttachRequest, Endpoint, PortRequest, PublishedPort
from proa.network.fabric import Fabric
from proa.network.loopback import bring_loopback_up
from proa.network.spec import NetworkSpec, SubnetSpec

__all__ = [
    "AttachRequest",
    "BridgeNetwork",
    "Endpoint",
    "Fabric",
    "NetworkSpec",
    "PortRequest",
    "PublishedPort",
    "SubnetSpec",
    "bring_loopback_up",
]
