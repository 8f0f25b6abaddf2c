"""Links, addresses and routes over one rtnetlink channel (rtnetlink(7)): one method per thing done, no policy.

The channel decides the network namespace: the engine's own, or a container's through a socket that was made in it.
"""

from __future__ import annotations

import errno
import functools
import socket
import struct
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from typing import NamedTuple

from proa.network.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Channel,
    NetlinkFailure,
    Step,
    attribute,
    attributes,
    nested,
    text,
    u8,
    u16,
    u32,
)
from proa.network.sysctls import has_ipv6

__all__ = [
    "AnyInterface",
    "Interior",
    "Link",
    "Links",
    "VethPair",
]

AnyInterface = IPv4Interface | IPv6Interface

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE = 32

IFF_UP = 0x1

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_IFALIAS = 20
IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_NET_NS_FD, IFLA_EXT_MASK = 18, 26, 28, 29
IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE, IFLA_VLAN_ID = 1, 1, 1
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_INET6_ADDR_GEN_MODE = 8
IN6_ADDR_GEN_MODE_NONE = 1
VETH_INFO_PEER = 1
IFLA_BR_FORWARD_DELAY, IFLA_BR_STP_STATE = 1, 5
IFLA_BRPORT_MODE, IFLA_BRPORT_GUARD, IFLA_BRPORT_PROTECT, IFLA_BRPORT_ISOLATED = 4, 5, 6, 33
RTEXT_FILTER_SKIP_STATS = 1 << 3

IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
FRA_PRIORITY, FRA_FWMARK = 6, 10
RT_SCOPE_UNIVERSE, RT_SCOPE_HOST = 0, 254
RT_TABLE_MAIN, RT_TABLE_LOCAL = 254, 255
RTPROT_BOOT = 3
RTN_UNICAST, RTN_LOCAL = 1, 2
FR_ACT_TO_TBL = 1
# The table of what is delivered to us by its mark, and the priority of the rule that leads there: before the main one.
_MARKED = 112

_INTERFACE = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBi")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg, and struct fib_rule_hdr


@functools.cache
def _no_link_local() -> bytes:
    """The attribute that keeps a link from giving itself an fe80 address; nothing on a kernel without IPv6.

    Only for links that exist: at their creation kernels answer EAFNOSUPPORT.
    """
    if not has_ipv6():
        return b""
    return nested(IFLA_AF_SPEC, nested(socket.AF_INET6, u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE)))


class Link(NamedTuple):
    """A network interface as the kernel lists it; `master` is 0 without a bridge, `peer` is a veth's other end's
    number, `alias` is what its maker wrote to it."""

    number: int
    name: str
    kind: str
    master: int
    mtu: int
    up: bool
    mac: str
    peer: int
    alias: str = ""


class VethPair(NamedTuple):
    """What `Links.create_veth` makes: the host's end on a bridge, the other end inside a namespace."""

    host_name: str
    bridge_index: int
    peer_name: str
    peer_mac: str
    peer_netns_fd: int
    mtu: int
    isolated: bool


class Interior(NamedTuple):
    """How an interface inside a container is set: addresses; gateways only where the default route goes by it."""

    addresses: tuple[AnyInterface, ...]
    gateways: tuple[IPv4Address | IPv6Address, ...] = ()


class Links:
    """Requests over one channel; OSError (NetlinkFailure) names the step that failed. Not thread-safe."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def find(self, name: str) -> Link | None:
        """The link of that name, or None."""
        step = Step(f"look up link {name}", RTM_GETLINK, 0, _interface() + text(IFLA_IFNAME, name) + _SKIP_STATS)
        try:
            return _parse_link(self._channel.get(step))
        except NetlinkFailure as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def all(self) -> list[Link]:
        """Every link of the namespace."""
        step = Step("list links", RTM_GETLINK, 0, _interface() + _SKIP_STATS)
        return [_parse_link(body) for body in self._channel.dump(step)]

    def addresses(self, family: int = socket.AF_INET) -> list[tuple[int, AnyInterface]]:
        """Every address of one family in the namespace with the index of its link."""
        found = []
        for body in self._channel.dump(Step("list addresses", RTM_GETADDR, 0, _ADDRESS.pack(family, 0, 0, 0, 0))):
            its_family, prefix, _, _, index = _ADDRESS.unpack_from(body)
            local = attributes(body, _ADDRESS.size)
            raw = local.get(IFA_LOCAL) or local.get(IFA_ADDRESS)
            if raw and its_family == family:
                found.append((index, ip_interface((raw, prefix))))
        return found

    def routes(self, family: int = socket.AF_INET) -> list[tuple[int, IPv4Network | IPv6Network]]:
        """Routes of one family, of all tables but `local`, with the index of their link (0: none or several)."""
        found = []
        header = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        nowhere = bytes(4 if family == socket.AF_INET else 16)
        for body in self._channel.dump(Step("list routes", RTM_GETROUTE, 0, header)):
            its_family, prefix, _, _, table, _, _, _, _ = _ROUTE.unpack_from(body)
            if table == RT_TABLE_LOCAL or its_family != family:
                continue
            fields = attributes(body, _ROUTE.size)
            link = struct.unpack("=I", fields[RTA_OIF])[0] if RTA_OIF in fields else 0
            found.append((link, ip_network((fields.get(RTA_DST, nowhere), prefix), strict=False)))
        return found

    def create_bridge(self, name: str, mac: str, mtu: int, alias: str = "") -> None:
        """Make bridge `name` with a fixed address (it would take its lowest port's and change), no STP, no delay.

        alias: what says whose it is.
        """
        body = (
            _interface(flags=IFF_UP, change=IFF_UP)
            + text(IFLA_IFNAME, name)
            + attribute(IFLA_ADDRESS, _mac_bytes(mac))
            + u32(IFLA_MTU, mtu)
            + nested(
                IFLA_LINKINFO,
                text(IFLA_INFO_KIND, "bridge"),
                nested(IFLA_INFO_DATA, u32(IFLA_BR_FORWARD_DELAY, 0), u32(IFLA_BR_STP_STATE, 0)),
            )
        )
        steps = [Step(f"create bridge {name}", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)]
        if alias:
            named = _interface() + text(IFLA_IFNAME, name) + attribute(IFLA_IFALIAS, alias.encode())
            steps.append(Step(f"mark bridge {name}", RTM_SETLINK, 0, named))
        self._channel.request(*steps)

    def create_veth(self, pair: VethPair) -> None:
        """Make the pair in one message: host end up on its bridge, peer born inside its namespace with its final name.

        Being born there saves the move and the rename, each of which waits for a grace period of the kernel.
        The port on the bridge: hairpin lets a container reach its own published port when bridge-nf-call-iptables
        rewrites bridged frames; guard and root block refuse spanning tree frames; isolated ports reach the bridge but
        not one another.
        """
        peer = (
            _interface()
            + text(IFLA_IFNAME, pair.peer_name)
            + attribute(IFLA_ADDRESS, _mac_bytes(pair.peer_mac))
            + u32(IFLA_MTU, pair.mtu)
            + u32(IFLA_NET_NS_FD, pair.peer_netns_fd)
        )
        body = (
            _interface(flags=IFF_UP, change=IFF_UP)
            + text(IFLA_IFNAME, pair.host_name)
            + u32(IFLA_MTU, pair.mtu)
            + u32(IFLA_MASTER, pair.bridge_index)
            + nested(
                IFLA_LINKINFO,
                text(IFLA_INFO_KIND, "veth"),
                nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, peer)),
            )
        )
        self._channel.request(
            Step(f"create veth {pair.host_name}", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body),
            _port_rules(pair.host_name, isolated=pair.isolated),
        )

    def enslave(self, link: Link, bridge_index: int, *, isolated: bool) -> None:
        """Put a link on a bridge (again) and up, with the rules of `create_veth`."""
        body = _interface(index=link.number, flags=IFF_UP, change=IFF_UP) + u32(IFLA_MASTER, bridge_index)
        self._channel.request(
            Step(f"put {link.name} on its bridge", RTM_NEWLINK, 0, body), _port_rules(link.name, isolated=isolated)
        )

    def set_up(self, index: int, name: str) -> None:
        """Bring a link up."""
        self._channel.request(_up(index, name))

    def add_address(self, index: int, address: AnyInterface, name: str) -> None:
        """Give a link an address, usable at once; one it has already is fine."""
        try:
            self._channel.request(_address(index, address, name))
        except NetlinkFailure as error:
            if error.errno != errno.EEXIST:
                raise

    def remove_address(self, index: int, address: AnyInterface, name: str) -> None:
        """Take an address away."""
        body = _ADDRESS.pack(_family(address), address.network.prefixlen, 0, RT_SCOPE_UNIVERSE, index)
        body += attribute(IFA_LOCAL, address.ip.packed)
        self._channel.request(Step(f"remove {address} from {name}", RTM_DELADDR, 0, body))

    def create_slave(self, kind: str, parent: int, name: str, mac: str, mtu: int, netns_fd: int, mode: int) -> None:
        """Make a macvlan or ipvlan interface of link number `parent`, born inside a namespace with its final name."""
        number = u32(IFLA_MACVLAN_MODE, mode) if kind == "macvlan" else u16(IFLA_IPVLAN_MODE, mode)
        body = (
            _interface()
            + text(IFLA_IFNAME, name)
            + (attribute(IFLA_ADDRESS, _mac_bytes(mac)) if mac else b"")
            + (u32(IFLA_MTU, mtu) if mtu else b"")
            + u32(IFLA_LINK, parent)
            + u32(IFLA_NET_NS_FD, netns_fd)
            + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind), nested(IFLA_INFO_DATA, number))
        )
        self._channel.request(Step(f"create {kind} link {name}", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body))

    def create_vlan(self, parent: int, name: str, number: int) -> None:
        """Make an 802.1Q link of link number `parent`, up."""
        body = (
            _interface(flags=IFF_UP, change=IFF_UP)
            + text(IFLA_IFNAME, name)
            + u32(IFLA_LINK, parent)
            + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "vlan"), nested(IFLA_INFO_DATA, u16(IFLA_VLAN_ID, number)))
        )
        self._channel.request(Step(f"create vlan link {name}", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body))

    def configure(self, index: int, name: str, interior: Interior) -> None:
        """A container's side in one send: lo up, the addresses, the link up, the default routes."""
        versions = {address.version for address in interior.addresses}
        silent = [] if 6 in versions else [_keep_silent(index, name)]
        self._channel.request(
            _up(1, "lo"),
            *silent,
            *(_address(index, address, name) for address in interior.addresses),
            _up(index, name),
            *(_default_route(index, gateway) for gateway in interior.gateways),
        )

    def set_default_route(self, index: int, gateway: IPv4Address | IPv6Address) -> None:
        """Make that gateway the default route's, whichever it was before."""
        self.remove_default_routes(gateway.version)
        self._channel.request(_default_route(index, gateway))

    def remove_default_routes(self, version: int) -> None:
        """Remove the default routes of IP version 4 or 6 that have a gateway."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        route = _ROUTE.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, 255, 0, 0)
        while True:
            try:
                self._channel.request(Step("remove default route", RTM_DELROUTE, 0, route))
            except NetlinkFailure as error:
                if error.errno not in {errno.ESRCH, errno.ENOENT}:
                    raise
                return

    def deliver_marked(self, mark: int, version: int) -> None:
        """Deliver what bears that mark to this namespace's sockets, whatever its destination. Idempotent."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        route = _ROUTE.pack(family, 0, 0, 0, _MARKED, RTPROT_BOOT, RT_SCOPE_HOST, RTN_LOCAL, 0) + u32(RTA_OIF, 1)
        rule = _ROUTE.pack(family, 0, 0, 0, _MARKED, 0, 0, FR_ACT_TO_TBL, 0)
        rule += u32(FRA_PRIORITY, _MARKED) + u32(FRA_FWMARK, mark)
        for what, kind, body in (("route", RTM_NEWROUTE, route), ("rule", RTM_NEWRULE, rule)):
            try:
                self._channel.request(Step(f"add {what} for marked packets", kind, NLM_F_CREATE | NLM_F_EXCL, body))
            except NetlinkFailure as error:
                if error.errno != errno.EEXIST:
                    raise

    def delete(self, name: str) -> bool:
        """Delete a link (both ends of a veth pair); False when there was none."""
        return self._delete(Step(f"delete link {name}", RTM_DELLINK, 0, _interface() + text(IFLA_IFNAME, name)))

    def delete_number(self, number: int, name: str) -> bool:
        """Delete the link of that number, whatever its name is now; False when there was none."""
        return self._delete(Step(f"delete link {name}", RTM_DELLINK, 0, _interface(index=number)))

    def _delete(self, step: Step) -> bool:
        try:
            self._channel.request(step)
        except NetlinkFailure as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        return True


def _interface(*, family: int = 0, index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _INTERFACE.pack(family, 0, index, flags, change)


_SKIP_STATS = u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def _up(index: int, name: str) -> Step:
    return Step(f"bring {name} up", RTM_NEWLINK, 0, _interface(index=index, flags=IFF_UP, change=IFF_UP))


def _port_rules(name: str, *, isolated: bool) -> Step:
    rules = nested(
        IFLA_LINKINFO,
        text(IFLA_INFO_SLAVE_KIND, "bridge"),
        nested(
            IFLA_INFO_SLAVE_DATA,
            u8(IFLA_BRPORT_MODE, 1),
            u8(IFLA_BRPORT_GUARD, 1),
            u8(IFLA_BRPORT_PROTECT, 1),
            u8(IFLA_BRPORT_ISOLATED, int(isolated)),
        ),
    )
    return Step(
        f"set bridge port {name}", RTM_NEWLINK, 0, _interface() + text(IFLA_IFNAME, name) + rules + _no_link_local()
    )


def _keep_silent(index: int, name: str) -> Step:
    return Step(f"keep {name} from addressing itself", RTM_SETLINK, 0, _interface(index=index) + _no_link_local())


def _family(address: AnyInterface | IPv4Address | IPv6Address) -> int:
    return int(socket.AF_INET if address.version == 4 else socket.AF_INET6)


def _address(index: int, address: AnyInterface, name: str) -> Step:
    body = (
        _ADDRESS.pack(_family(address), address.network.prefixlen, 0, RT_SCOPE_UNIVERSE, index)
        + attribute(IFA_LOCAL, address.ip.packed)
        + attribute(IFA_ADDRESS, address.ip.packed)
    )
    if address.version == 4:
        body += attribute(IFA_BROADCAST, address.network.broadcast_address.packed)
    else:
        # Addresses are given by us, so nobody need be asked for a second whether they are free.
        body += u32(IFA_FLAGS, IFA_F_NODAD)
    return Step(f"add {address} to {name}", RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)


def _default_route(index: int, gateway: IPv4Address | IPv6Address) -> Step:
    body = (
        _ROUTE.pack(_family(gateway), 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
        + attribute(RTA_GATEWAY, gateway.packed)
        + u32(RTA_OIF, index)
    )
    return Step(f"add default route by {gateway}", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body)


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _INTERFACE.unpack_from(body)
    fields = attributes(body, _INTERFACE.size)
    kind = attributes(fields.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND, b"")
    master, mtu, peer = fields.get(IFLA_MASTER), fields.get(IFLA_MTU), fields.get(IFLA_LINK)
    return Link(
        number=index,
        name=fields.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        kind=kind.rstrip(b"\0").decode(errors="replace"),
        master=struct.unpack("=I", master)[0] if master else 0,
        mtu=struct.unpack("=I", mtu)[0] if mtu else 0,
        up=bool(flags & IFF_UP),
        mac=fields.get(IFLA_ADDRESS, b"").hex(":"),
        peer=struct.unpack("=I", peer)[0] if peer else 0,
        alias=fields.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
    )
