"""Connect containers: bridges, addresses, nftables rules and published ports."""

from __future__ import annotations

from proa.network.bridge import BridgeNetwork
from proa.network.endpoint import Endpoint, PortRequest, PublishedPort
from proa.network.loopback import bring_loopback_up

__all__ = ["BridgeNetwork", "Endpoint", "PortRequest", "PublishedPort", "bring_loopback_up"]
