"""`--network none`: a namespace of its own with nothing but lo."""

from __future__ import annotations

from proa.network.links import Links
from proa.network.netlink import NETLINK_ROUTE, Channel

__all__ = ["bring_loopback_up"]


def bring_loopback_up(rtnl_fd: int) -> None:
    """Bring lo up in the namespace a NETLINK_ROUTE socket was made in. Raises OSError."""
    with Channel(NETLINK_ROUTE, fd=rtnl_fd) as channel:
        Links(channel).set_up(1, "lo")
