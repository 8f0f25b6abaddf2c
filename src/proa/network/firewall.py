"""The one nf_tables table of an engine: what it does to packets, and how a published port enters it.

    inet table proa-<root>
      guard      prerouting raw     127/8 off the wire, our subnets from elsewhere: drop; by arriving bridge -> guard-N
      guard-N                       sources that are not the network's, families it has not, internal to elsewhere: drop
      dnat       prerouting nat     to this host, port published    -> container (two maps a family)
      dnat-own   output nat         the same for the host's own programs, 127.0.0.1 included
      refuse     output filter      without a relay, to ::1 at a published port: reset or unreachable, as it cannot be
                                    redirected
      forward    forward filter     internal networks: by bridge -> from-N, into-N (drop what crosses); established;
                                    by leaving bridge -> to-N
      to-N                          published, or from the same bridge; else drop
      relayed    output mangle      marked by the relay: so is the connection   } in a network namespace of the
      answered   prerouting mangle  of a marked connection: so is the packet    } engine's own only
      source     postrouting nat    by leaving bridge -> out-N (hairpin, 127/8: masquerade); else from ours: masquerade
      map published-at[6]  protocol . address . port -> address . port
      map published[6]     protocol . port           -> address . port
    bridge table proa-<root>
      guard      prerouting         router advertisements, and IPv6 frames of networks without IPv6: drop

N counts the networks; a packet finds its chains by one lookup in a map of interface names, so a hundred networks cost
it what one does. Every chain's policy is accept and only traffic of our bridges is named, so the table never opens what
another table closes: rules of the host's administrator and of other engines hold before, after and beside it. A port is
one map element, so publishing costs the same with one port and with thousands, and the packet path stays one hash
lookup.

Sources: nft(8); the order of chains is by priority raw -300, dstnat -100, filter 0, srcnat 100; CVE-2020-8558 for the
127/8 guard that `route_localnet` calls for.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from proa.network.endpoint import PROTOCOL_NUMBERS, PublishedPort
from proa.network.netlink import NETLINK_NETFILTER, Channel, NetlinkFailure
from proa.network.nft import (
    ADDRESS,
    ADDRESS6,
    BRIDGE,
    CT_ESTABLISHED,
    CT_RELATED,
    CT_STATUS_DNAT,
    INET,
    INTERFACE,
    PORT,
    PROTOCOL,
    Hook,
    Rule,
    TableWriter,
    base_chains,
    chain_names,
    interface_key,
    tables,
)

__all__ = ["Firewall", "Zone"]

_RAW, _MANGLE, _DSTNAT, _FILTER, _SRCNAT = -300, -150, -100, 0, 100
_ETHERTYPE_IPV6 = 0x86DD
_LOOPBACK: dict[int, IPv4Network | IPv6Network] = {4: IPv4Network("127.0.0.0/8"), 6: IPv6Network("::1/128")}
# Destinations that never leave the link, broadcast included.
_LINK_WIDE: dict[int, tuple[IPv4Network | IPv6Network, ...]] = {
    4: (IPv4Network("224.0.0.0/3"),),
    6: (IPv6Network("ff00::/8"), IPv6Network("fe80::/10")),
}
_OWN_SOURCES: dict[int, tuple[IPv4Network | IPv6Network, ...]] = {
    4: (),
    6: (IPv6Network("fe80::/10"), IPv6Network("::/128")),
}

# What a kernel without a table's family, or without that kind of expression, answers.
_NOT_HAD = {errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}

_AT_ADDRESS = {4: "published-at", 6: "published-at6"}
_AT_ANY = {4: "published", 6: "published6"}
_ADDRESS = {4: ADDRESS, 6: ADDRESS6}

# An empty table that says: this host's ip_forward was off before an engine of ours turned it on. It lives and dies with
# the network namespace like the switch itself, and outlives the engine that set it while others still need it.
FORWARDING_MARK = "proa-forwarding"
FORWARDING_MARK6 = "proa-forwarding6"
_PREFIX = "proa-"
# What a relay's packets to containers bear and so their connections, and what the answers bear by which they come back
# to it though they are for a client's address. Two marks: routing looks at the one of packets that leave, too.
RELAY_MARK, ANSWER_MARK = 0x70726F61, 0x70726F62

Target = tuple[IPv4Address | IPv6Address, PublishedPort]


class Zone(NamedTuple):
    """What the table has to know of one bridge network.

    icc: containers reach one another, not only their published ports; internal: nothing passes between it and
    elsewhere; masquerade: what leaves it bears the host's address.
    """

    bridge: str
    subnets: tuple[IPv4Network | IPv6Network, ...]
    icc: bool = True
    internal: bool = False
    masquerade: bool = True


class Firewall:
    """The table of one engine, over its own nfnetlink channel. Not thread-safe; OSError names the step that failed."""

    def __init__(self, table: str, port_prefixes: Mapping[bool, str]) -> None:
        """table: its name; port_prefixes: how the names of bridges' ports begin, on networks with IPv6 and without.

        `author` is the netlink address our changes come from.
        """
        self._table = table
        self._port_prefixes = port_prefixes
        self._channel = Channel(NETLINK_NETFILTER)
        self.author = self._channel.address()

    def close(self) -> None:
        """Close the channel; the rules stay."""
        self._channel.close()

    def install(
        self, zones: Sequence[Zone], ports: Iterable[Target], *, relayed: bool = False, to_loopback: bool = False
    ) -> bool:
        """Write the whole table anew with all published ports, atomically: packets see the old one or the new one.

        relayed: a relay connects to containers with clients' addresses; to_loopback: it carries what comes to ::1.
        Returns whether the kernel also took the bridge family's guard and the refusals (modules some kernels lack).
        """
        writer = TableWriter(INET, self._table)
        writer.replace()
        _write_chains(writer, zones)
        if relayed:
            writer.base_chain("relayed", "filter", Hook.OUTPUT, _MANGLE)
            writer.rule("relayed", Rule().mark(RELAY_MARK).set_ct_mark(RELAY_MARK))
            writer.base_chain("answered", "filter", Hook.PREROUTING, _MANGLE)
            writer.rule("answered", Rule().ct_mark(RELAY_MARK).set_mark(ANSWER_MARK))
        _write_ports(writer, ports, add=True)
        self._channel.transaction(writer.steps)
        refusing = TableWriter(INET, self._table)
        if not to_loopback:
            _write_refusals(refusing)
        complete = self._optional(refusing)
        frames = TableWriter(BRIDGE, self._table)
        frames.replace()
        # Every frame comes by here: what is not IPv6 is let go after one comparison; two rules took a
        # stream 5 to 8 % of its processor time.
        frames.chain("ipv6")
        frames.rule("ipv6", Rule().iifname_starts(self._port_prefixes[True]).router_advertisement().drop())
        frames.rule("ipv6", Rule().iifname_starts(self._port_prefixes[False]).drop())
        frames.base_chain("guard", "filter", Hook.PREROUTING, _RAW)
        frames.rule("guard", Rule().protocol(_ETHERTYPE_IPV6).jump("ipv6"))
        return self._optional(frames) and complete

    def _optional(self, writer: TableWriter) -> bool:
        """Whether the kernel has what these steps need."""
        try:
            self._channel.transaction(writer.steps)
        except NetlinkFailure as error:
            if error.errno not in _NOT_HAD:
                raise
            return False
        return True

    def add(self, ports: Iterable[Target]) -> None:
        """Publish ports in one transaction. FileExistsError: a port is in the map already."""
        writer = TableWriter(INET, self._table)
        _write_ports(writer, ports, add=True)
        self._channel.transaction(writer.steps)

    def remove(self, ports: Iterable[Target]) -> None:
        """Take ports out again; those that are gone already, with the table perhaps, are fine."""
        listed = list(ports)
        try:
            writer = TableWriter(INET, self._table)
            _write_ports(writer, listed, add=False)
            self._channel.transaction(writer.steps)
        except NetlinkFailure as error:
            if error.errno != errno.ENOENT:
                raise
            # One missing element undoes the whole transaction, so take them one by one.
            for target in listed if len(listed) > 1 else ():
                self.remove([target])

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

    def mark_forwarding(self, mark: str = FORWARDING_MARK, links: Iterable[str] = ()) -> None:
        """Note that forwarding was off before us, and which links' switches we change with it."""
        writer = TableWriter(INET, mark)
        writer.create()
        for name in links:
            writer.chain(name)
        self._channel.transaction(writer.steps)

    def forwarding_is_marked(self, mark: str = FORWARDING_MARK) -> bool:
        """Whether an engine of ours turned forwarding on."""
        return mark in tables(self._channel, INET)

    def marked_links(self, mark: str) -> list[str]:
        """The links whose switches were changed with forwarding."""
        return chain_names(self._channel, INET, mark)

    def other_engines(self) -> bool:
        """Whether another engine of ours has a table here."""
        return any(
            name.startswith(_PREFIX) and name not in {self._table, FORWARDING_MARK, FORWARDING_MARK6}
            for name in tables(self._channel, INET)
        )

    def others_forward(self) -> bool:
        """Whether a table that is not of our kind has a say about forwarded packets."""
        return any(
            chain.hook in {Hook.FORWARD, Hook.POSTROUTING} and not chain.table.startswith(_PREFIX)
            for chain in base_chains(self._channel)
        )

    def unmark_forwarding(self, mark: str = FORWARDING_MARK) -> None:
        """Forget the note."""
        writer = TableWriter(INET, mark)
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


def _write_chains(writer: TableWriter, zones: Sequence[Zone]) -> None:
    subnets = [subnet for zone in zones for subnet in zone.subnets]
    numbered = list(enumerate(zones))
    for version, field in _ADDRESS.items():
        own = f"own{version}"
        writer.networks(own, field, [subnet for subnet in subnets if subnet.version == version])
        hidden = [net for zone in zones if zone.masquerade for net in zone.subnets if net.version == version]
        writer.networks(f"masquerade{version}", field, hidden)
        writer.map(_AT_ADDRESS[version], (PROTOCOL, field, PORT), (field, PORT))
        writer.map(_AT_ANY[version], (PROTOCOL, PORT), (field, PORT))

    for number, zone in numbered:
        for chain in ("guard", "to", "out", *(("from", "into") if zone.internal else ())):
            writer.chain(f"{chain}-{number}")
        _write_guard(writer, f"guard-{number}", zone)
        _write_forward(writer, number, zone)
        _write_source(writer, f"out-{number}", zone)
    keys = [(interface_key(zone.bridge), number) for number, zone in numbered]
    closed = [(key, number) for key, number in keys if zones[number].internal]
    maps = (("guards", "guard", keys), ("from", "from", closed), ("into", "into", closed), ("to", "to", keys))
    for name, chain, members in (*maps, ("out", "out", keys)):
        writer.verdict_map(name, INTERFACE, [(key, f"{chain}-{number}") for key, number in members])

    writer.base_chain("guard", "filter", Hook.PREROUTING, _RAW)
    writer.rule("guard", Rule().ipv4().daddr(_LOOPBACK[4]).iifname("lo", equal=False).drop())
    writer.rule("guard", Rule().load_iifname(0).jump_by("guards", 0))
    for version in _ADDRESS:
        foreign = (Rule().ipv4() if version == 4 else Rule().ipv6()).load_saddr(0, version=version)
        writer.rule("guard", foreign.member(f"own{version}", 0).iifname("lo", equal=False).drop())

    for chain, hook in (("dnat", Hook.PREROUTING), ("dnat-own", Hook.OUTPUT)):
        writer.base_chain(chain, "nat", hook, _DSTNAT)
        for version, field in _ADDRESS.items():
            words = field.size_bytes // 4
            # The map first: what is no published port need not be looked up among the host's addresses.
            at_address = (Rule().ipv4() if version == 4 else Rule().ipv6()).load_l4proto(0)
            at_address.load_daddr(1, version=version).load_dport(1 + words)
            at_address.lookup(_AT_ADDRESS[version], 0, 0).to_local().dnat(0, words, version=version)
            writer.rule(chain, at_address)
            at_any = Rule().ipv4() if version == 4 else Rule().ipv6().daddr(_LOOPBACK[6], equal=False)
            at_any.load_l4proto(0).load_dport(1)
            writer.rule(chain, at_any.lookup(_AT_ANY[version], 0, 0).to_local().dnat(0, words, version=version))

    writer.base_chain("forward", "filter", Hook.FORWARD, _FILTER)
    if closed:  # where bridged frames pass here too, two look-ups less for each are worth it
        writer.rule("forward", Rule().load_iifname(0).jump_by("from", 0))
        writer.rule("forward", Rule().load_oifname(0).jump_by("into", 0))
    writer.rule("forward", Rule().ct_state(CT_ESTABLISHED | CT_RELATED).accept())
    writer.rule("forward", Rule().load_oifname(0).jump_by("to", 0))
    writer.base_chain("source", "nat", Hook.POSTROUTING, _SRCNAT)
    writer.rule("source", Rule().load_oifname(0).jump_by("out", 0))
    for version in _ADDRESS:
        leaving = (Rule().ipv4() if version == 4 else Rule().ipv6()).load_saddr(0, version=version)
        writer.rule("source", leaving.member(f"masquerade{version}", 0).masquerade())


def _write_refusals(writer: TableWriter) -> None:
    """IPv6 has no route_localnet: what goes to ::1 cannot be redirected. Clients shall hear so and try 127.0.0.1."""
    writer.base_chain("refuse", "filter", Hook.OUTPUT, _FILTER)
    for protocol in (PROTOCOL_NUMBERS["tcp"], PROTOCOL_NUMBERS["udp"]):
        rule = Rule().ipv6().daddr(_LOOPBACK[6]).l4proto(protocol).load_l4proto(0).load_dport(1)
        writer.rule("refuse", rule.lookup(_AT_ANY[6], 0, 0).refuse(protocol))


def _write_guard(writer: TableWriter, chain: str, zone: Zone) -> None:
    """What a network's containers may send at all, bridged or routed."""
    for version in _ADDRESS:
        own = [subnet for subnet in zone.subnets if subnet.version == version]
        family = Rule().ipv4() if version == 4 else Rule().ipv6()
        for network in (*own, *_OWN_SOURCES[version]) if own else ():
            family.saddr(network, equal=False)
        writer.rule(chain, family.drop())
        if zone.internal and own:
            elsewhere = Rule().ipv4() if version == 4 else Rule().ipv6()
            for network in (*own, *_LINK_WIDE[version]):
                elsewhere.daddr(network, equal=False)
            writer.rule(chain, elsewhere.drop())
    writer.rule(chain, Rule().accept())


def _write_forward(writer: TableWriter, number: int, zone: Zone) -> None:
    if zone.internal:
        writer.rule(f"from-{number}", Rule().oifname(zone.bridge, equal=False).drop())
        writer.rule(f"into-{number}", Rule().iifname(zone.bridge, equal=False).drop())
    chain = f"to-{number}"
    writer.rule(chain, Rule().ct_status(CT_STATUS_DNAT).accept())
    if zone.icc:
        writer.rule(chain, Rule().iifname(zone.bridge).accept())
    writer.rule(chain, Rule().drop())


def _write_source(writer: TableWriter, chain: str, zone: Zone) -> None:
    for subnet in zone.subnets:
        writer.rule(chain, Rule().of_family(subnet).saddr(subnet).ct_status(CT_STATUS_DNAT).masquerade())
        writer.rule(chain, Rule().of_family(subnet).saddr(subnet).accept())
        writer.rule(chain, Rule().of_family(subnet).saddr(_LOOPBACK[subnet.version]).masquerade())


def _write_ports(writer: TableWriter, ports: Iterable[Target], *, add: bool) -> None:
    entries: dict[str, list[tuple[bytes, bytes]]] = {}
    for address, port in ports:
        protocol = bytes([PROTOCOL_NUMBERS[port.protocol], 0, 0, 0])
        host_port = port.host_port.to_bytes(2, "big") + b"\0\0"
        value = address.packed + port.container_port.to_bytes(2, "big") + b"\0\0"
        host = ip_address(port.host_ip)
        if host.is_unspecified:
            entries.setdefault(_AT_ANY[host.version], []).append((protocol + host_port, value))
        else:
            key = protocol + host.packed + host_port
            entries.setdefault(_AT_ADDRESS[host.version], []).append((key, value))
    for name, pairs in entries.items():
        if add:
            writer.add_elements(name, pairs)
        else:
            writer.remove_elements(name, [key for key, _ in pairs])
