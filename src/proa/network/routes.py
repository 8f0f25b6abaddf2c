"""Where a running container's packets go that no network of its own takes: its default routes."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from proa.network.links import Links
from proa.network.netlink import NETLINK_ROUTE, Channel
from proa.network.refusals import explained

__all__ = ["set_default_routes"]


def set_default_routes(rtnl_fd: int, interface: str, gateways: Sequence[str]) -> None:
    """Route by these gateways (at most one a family), reached by `interface`; a family without one has no route.

    rtnl_fd: a NETLINK_ROUTE socket that was made in the container's namespace. Raises Internal, Denied.
    """
    with explained("routes"), Channel(NETLINK_ROUTE, fd=rtnl_fd) as channel:
        links = Links(channel)
        link = links.find(interface) if interface else None
        wanted = {address.version: address for address in map(ip_address, gateways)}
        for version in (4, 6):
            if link is None or version not in wanted:
                links.remove_default_routes(version)
            else:
                links.set_default_route(link.number, wanted[version])
