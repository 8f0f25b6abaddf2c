"""In a container's network namespace: queries to 127.0.0.11:53 reach the sockets that answer them.

The sockets have ports of their own, so that a name server in the container can have port 53 on every address.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network

from proa.network.endpoint import PROTOCOL_NUMBERS
from proa.network.files import RESOLVER_ADDRESS
from proa.network.netlink import NETLINK_NETFILTER, Channel
from proa.network.nft import IPV4, Hook, Rule, TableWriter
from proa.network.refusals import explained

__all__ = ["redirect_name_port"]

_TABLE = "proa-names"
_PORT = 53
_DSTNAT = -100


def redirect_name_port(netfilter_fd: int, udp_fd: int, tcp_fd: int) -> None:
    """Redirect the name port to two bound sockets; done again, it replaces what was there.

    netfilter_fd: a NETLINK_NETFILTER socket of the namespace. Raises Unsupported when the kernel has no nf_tables.
    """
    writer = TableWriter(IPV4, _TABLE)
    writer.replace()
    writer.base_chain("queries", "nat", Hook.OUTPUT, _DSTNAT)
    address = IPv4Network(RESOLVER_ADDRESS)
    for protocol, fd in (("udp", udp_fd), ("tcp", tcp_fd)):
        with socket.socket(fileno=socket.dup(fd)) as bound:
            port = bound.getsockname()[1]
        query = Rule().daddr(address).l4proto(PROTOCOL_NUMBERS[protocol]).dport(_PORT)
        writer.rule("queries", query.set_address(IPv4Address(RESOLVER_ADDRESS).packed, port).dnat(0, 1))
    with explained("names"), Channel(NETLINK_NETFILTER, fd=netfilter_fd) as channel:
        channel.transaction(writer.steps)
