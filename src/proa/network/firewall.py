"""The one nf_tables table of an engine: what it does to packets, and how a published port enters it.

    inet table proa-<root>
      guard      prerouting raw     127/8 off the wire, IPv6 and foreign sources off the bridge: drop
      dnat       prerouting nat     to this host, port published    -> container (two maps: one address, any address)
      dnat-own   output nat         the same for the host's own programs, 127.0.0.1 included
      forward    forward filter     to the bridge: established, published, or from the bridge; else drop
      source     postrouting nat    leaving the subnet, hairpin, and from 127/8: masquerade
      map published-at   protocol . address . port -> address . port
      map published      protocol . port           -> address . port
    bridge table proa-<root>
      guard      prerouting         IPv6 frames of a network without IPv6: drop

Every chain's policy is accept and only our bridge's traffic is named, so the table never opens what another table
closes: rules of the host's administrator and of other engines hold before, after and beside it. A port is one map
element, so publishing costs the same with one port and with thousands, and the packet path stays one hash lookup.

Sources: nft(8); the order of chains is by priority raw -300, dstnat -100, filter 0, srcnat 100; CVE-2020-8558 for the
127/8 guard that `route_localnet` calls for.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from proa.network.endpoint import PROTOCOL_NUMBERS, PublishedPort
from proa.network.netlink import NETLINK_NETFILTER, Channel, NetlinkFailure
from proa.network.nft import (
    BRIDGE,
    CT_ESTABLISHED,
    CT_RELATED,
    CT_STATUS_DNAT,
    INET,
    Hook,
    Rule,
    TableWriter,
    base_chains,
    tables,
)

__all__ = ["Firewall"]

_ADDRESS, _PROTOCOL, _PORT = 7, 12, 13  # nft's type numbers: ipv4_addr, inet_proto, inet_service
_RAW, _DSTNAT, _FILTER, _SRCNAT = -300, -100, 0, 100
_ETHERTYPE_IPV6 = 0x86DD
_LOOPBACK, _LOOPBACK_MASK = bytes([127, 0, 0, 0]), bytes([255, 0, 0, 0])

# What a kernel without a table's family, or without that kind of expression, answers.
_NOT_HAD = {errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}

_AT_ADDRESS = "published-at"
_AT_ANY = "published"

# An empty table that says: this host's ip_forward was off before an engine of ours turned it on. It lives and dies with
# the network namespace like the switch itself, and outlives the engine that set it while others still need it.
FORWARDING_MARK = "proa-forwarding"
_PREFIX = "proa-"


class Firewall:
    """The table of one engine, over its own nfnetlink channel. Not thread-safe; OSError names the step that failed."""

    def __init__(self, table: str, bridge: str, port_prefix: str) -> None:
        """table: its name; bridge: the network's link; port_prefix: how the names of the bridge's ports begin.

        `author` is the netlink address our changes come from.
        """
        self._table = table
        self._bridge = bridge
        self._port_prefix = port_prefix
        self._channel = Channel(NETLINK_NETFILTER)
        self.author = self._channel.address()

    def close(self) -> None:
        """Close the channel; the rules stay."""
        self._channel.close()

    def install(
        self, subnet: IPv4Network, ports: Iterable[tuple[IPv4Address, PublishedPort]], *, icc: bool = True
    ) -> bool:
        """Write the whole table anew with all published ports, atomically: packets see the old one or the new one.

        icc: containers reach one another, not only their published ports.

        Returns whether the kernel also took the bridge family's guard (a module some kernels lack).
        """
        writer = TableWriter(INET, self._table)
        writer.replace()
        self._write_chains(writer, subnet, icc=icc)
        _write_ports(writer, ports, add=True)
        self._channel.transaction(writer.steps)
        frames = TableWriter(BRIDGE, self._table)
        frames.replace()
        frames.base_chain("guard", "filter", Hook.PREROUTING, _RAW)
        frames.rule("guard", Rule().iifname_starts(self._port_prefix).ethertype(_ETHERTYPE_IPV6).drop())
        try:
            self._channel.transaction(frames.steps)
        except NetlinkFailure as error:
            if error.errno not in _NOT_HAD:
                raise
            return False
        return True

    def _write_chains(self, writer: TableWriter, subnet: IPv4Network, *, icc: bool) -> None:
        bridge = self._bridge
        inside = (subnet.network_address.packed, subnet.netmask.packed)

        writer.base_chain("guard", "filter", Hook.PREROUTING, _RAW)
        writer.rule("guard", Rule().iifname("lo", equal=False).ipv4().daddr(_LOOPBACK, _LOOPBACK_MASK).drop())
        writer.rule("guard", Rule().iifname(bridge).ipv6().drop())
        writer.rule("guard", Rule().iifname(bridge).ipv4().saddr(*inside, equal=False).drop())

        writer.map(_AT_ADDRESS, (_PROTOCOL, _ADDRESS, _PORT), (_ADDRESS, _PORT))
        writer.map(_AT_ANY, (_PROTOCOL, _PORT), (_ADDRESS, _PORT))
        for chain, hook in (("dnat", Hook.PREROUTING), ("dnat-own", Hook.OUTPUT)):
            writer.base_chain(chain, "nat", hook, _DSTNAT)
            at_address = Rule().ipv4().to_local().load_l4proto(0).load_daddr(1).load_dport(2)
            writer.rule(chain, at_address.lookup(_AT_ADDRESS, 0, 0).dnat(0, 1))
            at_any = Rule().ipv4().to_local().load_l4proto(0).load_dport(1)
            writer.rule(chain, at_any.lookup(_AT_ANY, 0, 0).dnat(0, 1))

        writer.chain("to-containers")
        writer.rule("to-containers", Rule().ct_state(CT_ESTABLISHED | CT_RELATED).accept())
        writer.rule("to-containers", Rule().ct_status(CT_STATUS_DNAT).accept())
        if icc:
            writer.rule("to-containers", Rule().iifname(bridge).accept())
        writer.rule("to-containers", Rule().drop())
        writer.base_chain("forward", "filter", Hook.FORWARD, _FILTER)
        writer.rule("forward", Rule().oifname(bridge).jump("to-containers"))

        writer.base_chain("source", "nat", Hook.POSTROUTING, _SRCNAT)
        writer.rule("source", Rule().oifname(bridge, equal=False).ipv4().saddr(*inside).masquerade())
        hairpin = Rule().oifname(bridge).ipv4().saddr(*inside).ct_status(CT_STATUS_DNAT)
        writer.rule("source", hairpin.masquerade())
        writer.rule("source", Rule().oifname(bridge).ipv4().saddr(_LOOPBACK, _LOOPBACK_MASK).masquerade())

    def add(self, address: IPv4Address, ports: Iterable[PublishedPort]) -> None:
        """Publish ports of one container in one transaction. FileExistsError: a port is in the map already."""
        writer = TableWriter(INET, self._table)
        _write_ports(writer, [(address, port) for port in ports], add=True)
        self._channel.transaction(writer.steps)

    def remove(self, address: IPv4Address, ports: Iterable[PublishedPort]) -> None:
        """Take ports out again; those that are gone already, with the table perhaps, are fine."""
        listed = list(ports)
        try:
            self._remove(address, listed)
        except NetlinkFailure as error:
            if error.errno != errno.ENOENT:
                raise
            # One missing element undoes the whole transaction, so take them one by one.
            for port in listed if len(listed) > 1 else ():
                self.remove(address, [port])

    def _remove(self, address: IPv4Address, ports: list[PublishedPort]) -> None:
        writer = TableWriter(INET, self._table)
        _write_ports(writer, [(address, port) for port in ports], add=False)
        self._channel.transaction(writer.steps)

    def installed(self) -> bool:
        """Whether our table is there; no when we may not look or the kernel has no nf_tables."""
        try:
            return self._table in tables(self._channel, INET)
        except NetlinkFailure as error:
            if error.errno not in {errno.EPERM, *_NOT_HAD}:
                raise
            return False

    def uninstall(self) -> None:
        """Delete our tables; missing ones are fine."""
        for family in (INET, BRIDGE):
            writer = TableWriter(family, self._table)
            writer.create()
            writer.delete()
            try:
                self._channel.transaction(writer.steps)
            except NetlinkFailure as error:
                if error.errno not in _NOT_HAD:
                    raise

    def mark_forwarding(self) -> None:
        """Note that ip_forward was off before us."""
        writer = TableWriter(INET, FORWARDING_MARK)
        writer.create()
        self._channel.transaction(writer.steps)

    def forwarding_is_marked(self) -> bool:
        """Whether an engine of ours turned ip_forward on."""
        return FORWARDING_MARK in tables(self._channel, INET)

    def other_engines(self) -> bool:
        """Whether another engine of ours has a table here."""
        return any(
            name.startswith(_PREFIX) and name not in {self._table, FORWARDING_MARK}
            for name in tables(self._channel, INET)
        )

    def others_forward(self) -> bool:
        """Whether a table that is not of our kind has a say about forwarded packets."""
        return any(
            chain.hook in {Hook.FORWARD, Hook.POSTROUTING} and not chain.table.startswith(_PREFIX)
            for chain in base_chains(self._channel)
        )

    def unmark_forwarding(self) -> None:
        """Forget the note."""
        writer = TableWriter(INET, FORWARDING_MARK)
        writer.create()
        writer.delete()
        self._channel.transaction(writer.steps)

    def closed_by(self) -> list[str]:
        """Other tables whose forward chain drops by default: ours cannot overrule them."""
        families = {1: "inet", 2: "ip", 7: "bridge", 10: "ip6"}
        return [
            f"table {families.get(chain.family, str(chain.family))} {chain.table} chain {chain.name}"
            for chain in base_chains(self._channel)
            if chain.drops and chain.hook == Hook.FORWARD and chain.family in {1, 2} and chain.table != self._table
        ]


def _write_ports(writer: TableWriter, ports: Iterable[tuple[IPv4Address, PublishedPort]], *, add: bool) -> None:
    entries: dict[str, list[tuple[bytes, bytes]]] = {_AT_ADDRESS: [], _AT_ANY: []}
    for address, port in ports:
        protocol = bytes([PROTOCOL_NUMBERS[port.protocol], 0, 0, 0])
        host_port = port.host_port.to_bytes(2, "big") + b"\0\0"
        value = address.packed + port.container_port.to_bytes(2, "big") + b"\0\0"
        host = IPv4Address(port.host_ip)
        if host.is_unspecified:
            entries[_AT_ANY].append((protocol + host_port, value))
        else:
            entries[_AT_ADDRESS].append((protocol + host.packed + host_port, value))
    for name, pairs in entries.items():
        if add:
            writer.add_elements(name, pairs)
        else:
            writer.remove_elements(name, [key for key, _ in pairs])
