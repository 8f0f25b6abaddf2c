"""nf_tables objects as netlink messages (linux/netfilter/nf_tables.h): the words a rule is written with.

A rule is a list of expressions that load fields of the packet into registers, compare them and give a verdict; `Rule`
strings them together left to right, as `nft` prints them. Registers are the sixteen 4-byte ones, so a concatenation of
fields lies in consecutive registers, each field padded to four bytes, and a map's key and value are plain bytes.

    Rule().ipv4().to_local().load_l4proto(0).load_dport(1).lookup("published", 0, into=0).dnat(0, 1)
    Rule().load_iifname(0).jump_by("guards", 0)
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from proa.network.netlink import (
    NFNL_SUBSYS_NFTABLES,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Channel,
    Step,
    attribute,
    attributes,
    be32,
    nested,
    text,
)

__all__ = [
    "ADDRESS",
    "ADDRESS6",
    "BRIDGE",
    "INET",
    "INTERFACE",
    "PORT",
    "PROTOCOL",
    "BaseChain",
    "Field",
    "Hook",
    "IPV4",
    "Rule",
    "TableWriter",
    "base_chains",
    "chain_names",
    "interface_key",
    "tables",
]

INET = 1
IPV4 = 2
BRIDGE = 7
IPV6 = 10

NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN = 0, 1, 2, 3, 4
NEWRULE, NEWSET, NEWSETELEM, DELSETELEM = 6, 9, 12, 14

NF_DROP, NF_ACCEPT, NFT_JUMP = 0, 1, -3
NETWORK, TRANSPORT = 1, 2

CT_ESTABLISHED, CT_RELATED = 2, 4
CT_STATUS_DNAT = 1 << 5

_REGISTER0 = 8  # NFT_REG32_00
_SCRATCH = 15  # the register comparisons load into, away from what lookups read and write
_META = {"protocol": 1, "mark": 3, "nfproto": 15, "l4proto": 16, "iifname": 6, "oifname": 7}
_CT_MARK = 3
_FIB_ADDRTYPE, _FIB_DADDR, _RTN_LOCAL = 3, 2, 2
_INTERVAL, _MAP = 0x4, 0x8
_INTERVAL_END = 1
_VERDICT_TYPE = 0xFFFFFF00
_NAT_DNAT = 1
_REJECT_RESET, _REJECT_UNREACHABLE, _PORT_UNREACHABLE = 1, 2, 1


class Field(NamedTuple):
    """A part of a set's key or of a map's value: nft's number of its type (for listings), the bytes it takes."""

    type: int
    size_bytes: int


ADDRESS, ADDRESS6 = Field(7, 4), Field(8, 16)
PROTOCOL, PORT = Field(12, 4), Field(13, 4)
INTERFACE = Field(41, 16)


class Hook(IntEnum):
    """Where a base chain sits in the packet's path (the inet and bridge families share the numbers)."""

    PREROUTING = 0
    INPUT = 1
    FORWARD = 2
    OUTPUT = 3
    POSTROUTING = 4


class Rule:
    """Expressions in order; every method adds some and returns the rule."""

    def __init__(self) -> None:
        self._expressions: list[bytes] = []

    def encode(self) -> bytes:
        """The payload of NFTA_RULE_EXPRESSIONS."""
        return b"".join(nested(1, expression) for expression in self._expressions)

    def _add(self, name: str, *fields: bytes) -> Rule:
        self._expressions.append(text(1, name) + nested(2, *fields))
        return self

    def _compare(self, value: bytes, *, equal: bool = True) -> Rule:
        return self._add("cmp", be32(1, _SCRATCH - _width(value)), be32(2, int(not equal)), _value(3, value))

    def _meta(self, key: str, value: bytes, *, equal: bool = True) -> Rule:
        self._add("meta", be32(1, _SCRATCH - _width(value)), be32(2, _META[key]))
        return self._compare(value, equal=equal)

    def iifname(self, name: str, *, equal: bool = True) -> Rule:
        """Arrived by that interface (or by another one)."""
        return self._meta("iifname", interface_key(name), equal=equal)

    def oifname(self, name: str, *, equal: bool = True) -> Rule:
        """Leaves by that interface (or by another one)."""
        return self._meta("oifname", interface_key(name), equal=equal)

    def iifname_starts(self, prefix: str) -> Rule:
        """Arrived by an interface whose name starts so; in the bridge family that is the bridge's port."""
        self._add("meta", be32(1, _SCRATCH - 4), be32(2, _META["iifname"]))
        return self._add("cmp", be32(1, _SCRATCH - 4), be32(2, 0), _value(3, prefix.encode()))

    def ipv4(self) -> Rule:
        """The packet is IPv4 (inet family); needed before anything that reads its header."""
        return self._meta("nfproto", bytes([IPV4]))

    def ipv6(self) -> Rule:
        """The packet is IPv6 (inet family)."""
        return self._meta("nfproto", bytes([IPV6]))

    def router_advertisement(self) -> Rule:
        """An ICMPv6 router advertisement without extension headers (RFC 4861 4.2), of a frame that has IPv6 in it."""
        self._add("payload", be32(1, _SCRATCH - 1), be32(2, NETWORK), be32(3, 6), be32(4, 1))
        self._compare(bytes([58]))
        self._add("payload", be32(1, _SCRATCH - 1), be32(2, TRANSPORT), be32(3, 0), be32(4, 1))
        return self._compare(bytes([134]))

    def protocol(self, number: int) -> Rule:
        """The frame carries that, whether it has a VLAN's tag or not (bridge family)."""
        return self._meta("protocol", struct.pack(">H", number))

    def saddr(self, network: IPv4Network | IPv6Network, *, equal: bool = True) -> Rule:
        """Source inside (or outside) the network; `ipv4` or `ipv6` goes before."""
        return self._address(12 if network.version == 4 else 8, network, equal=equal)

    def daddr(self, network: IPv4Network | IPv6Network, *, equal: bool = True) -> Rule:
        """Destination inside (or outside) the network; `ipv4` or `ipv6` goes before."""
        return self._address(16 if network.version == 4 else 24, network, equal=equal)

    def _address(self, offset: int, network: IPv4Network | IPv6Network, *, equal: bool) -> Rule:
        mask, value = network.netmask.packed, network.network_address.packed
        size = len(value)
        register = _SCRATCH - _width(value)
        self._add("payload", be32(1, register), be32(2, NETWORK), be32(3, offset), be32(4, size))
        self._add(
            "bitwise", be32(1, register), be32(2, register), be32(3, size), _value(4, mask), _value(5, bytes(size))
        )
        return self._compare(value, equal=equal)

    def of_family(self, network: IPv4Network | IPv6Network) -> Rule:
        """The packet is of that network's family."""
        return self.ipv4() if network.version == 4 else self.ipv6()

    def to_local(self) -> Rule:
        """The destination is an address of this host, whichever (`fib daddr type local`)."""
        self._add("fib", be32(1, _SCRATCH - 1), be32(2, _FIB_ADDRTYPE), be32(3, _FIB_DADDR))
        return self._compare(struct.pack("=I", _RTN_LOCAL))

    def ct_state(self, bits: int) -> Rule:
        """Connection tracking state has one of these bits."""
        return self._ct(0, bits)

    def ct_status(self, bits: int) -> Rule:
        """Connection tracking status has one of these bits."""
        return self._ct(2, bits)

    def mark(self, number: int) -> Rule:
        """The packet bears that mark."""
        return self._meta("mark", struct.pack("=I", number))

    def ct_mark(self, number: int) -> Rule:
        """The packet's connection bears that mark."""
        self._add("ct", be32(1, _SCRATCH - 1), be32(2, _CT_MARK))
        return self._compare(struct.pack("=I", number))

    def set_mark(self, number: int) -> Rule:
        """Mark the packet."""
        self._add("immediate", be32(1, _SCRATCH - 1), _value(2, struct.pack("=I", number)))
        return self._add("meta", be32(2, _META["mark"]), be32(3, _SCRATCH - 1))

    def set_ct_mark(self, number: int) -> Rule:
        """Mark the connection."""
        self._add("immediate", be32(1, _SCRATCH - 1), _value(2, struct.pack("=I", number)))
        return self._add("ct", be32(2, _CT_MARK), be32(4, _SCRATCH - 1))

    def _ct(self, key: int, bits: int) -> Rule:
        register = _SCRATCH - 1
        self._add("ct", be32(1, register), be32(2, key))
        mask = struct.pack("=I", bits)
        self._add("bitwise", be32(1, register), be32(2, register), be32(3, 4), _value(4, mask), _value(5, bytes(4)))
        return self._compare(bytes(4), equal=False)

    def load_l4proto(self, slot: int) -> Rule:
        """Load the transport protocol's number into a slot."""
        return self._add("meta", be32(1, _REGISTER0 + slot), be32(2, _META["l4proto"]))

    def load_iifname(self, slot: int) -> Rule:
        """Load the arriving interface's name into four slots."""
        return self._add("meta", be32(1, _REGISTER0 + slot), be32(2, _META["iifname"]))

    def load_oifname(self, slot: int) -> Rule:
        """Load the leaving interface's name into four slots."""
        return self._add("meta", be32(1, _REGISTER0 + slot), be32(2, _META["oifname"]))

    def load_saddr(self, slot: int, *, version: int = 4) -> Rule:
        """Load the source into a slot, of IPv6 into four."""
        offset, size = (12, 4) if version == 4 else (8, 16)
        return self._add("payload", be32(1, _REGISTER0 + slot), be32(2, NETWORK), be32(3, offset), be32(4, size))

    def load_daddr(self, slot: int, *, version: int = 4) -> Rule:
        """Load the destination into a slot, of IPv6 into four."""
        offset, size = (16, 4) if version == 4 else (24, 16)
        return self._add("payload", be32(1, _REGISTER0 + slot), be32(2, NETWORK), be32(3, offset), be32(4, size))

    def load_dport(self, slot: int) -> Rule:
        """Load the destination port (tcp, udp, sctp have it at the same place) into a slot."""
        return self._add("payload", be32(1, _REGISTER0 + slot), be32(2, TRANSPORT), be32(3, 2), be32(4, 2))

    def dport(self, number: int) -> Rule:
        """The destination port is `number`."""
        self._add("payload", be32(1, _SCRATCH - 1), be32(2, TRANSPORT), be32(3, 2), be32(4, 2))
        return self._compare(struct.pack(">H", number))

    def l4proto(self, number: int) -> Rule:
        """The transport protocol has that number."""
        return self._meta("l4proto", bytes([number]))

    def member(self, name: str, slot: int) -> Rule:
        """The key that starts at a slot is in the set; otherwise the rule ends."""
        return self._add("lookup", text(1, name), be32(2, _REGISTER0 + slot))

    def lookup(self, name: str, slot: int, into: int) -> Rule:
        """Look up the key that starts at a slot; the value lands from slot `into` on, no match ends the rule."""
        return self._add("lookup", text(1, name), be32(2, _REGISTER0 + slot), be32(3, _REGISTER0 + into))

    def jump_by(self, name: str, slot: int) -> Rule:
        """Jump to the chain that a verdict map has for the key that starts at a slot; no match ends the rule."""
        return self._add("lookup", text(1, name), be32(2, _REGISTER0 + slot), be32(3, 0))

    def set_address(self, packed: bytes, port: int) -> Rule:
        """Put a constant address and port where `dnat(0, …)` takes them from: slot 0 and the one after it."""
        self._add("immediate", be32(1, _REGISTER0), _value(2, packed))
        return self._add("immediate", be32(1, _REGISTER0 + _width(packed)), _value(2, struct.pack(">H", port)))

    def dnat(self, address_slot: int, port_slot: int, *, version: int = 4) -> Rule:
        """Rewrite the destination from two slots, the address of IPv6 from four."""
        return self._add(
            "nat",
            be32(1, _NAT_DNAT),
            be32(2, IPV4 if version == 4 else IPV6),
            be32(3, _REGISTER0 + address_slot),
            be32(5, _REGISTER0 + port_slot),
        )

    def masquerade(self) -> Rule:
        """Rewrite the source to the address of the leaving interface."""
        return self._add("masq")

    def accept(self) -> Rule:
        """End this hook's chain: fine (other tables still have their say)."""
        return self._verdict(be32(1, NF_ACCEPT))

    def drop(self) -> Rule:
        """Discard the packet."""
        return self._verdict(be32(1, NF_DROP))

    def refuse(self, protocol: int) -> Rule:
        """Answer tcp with a reset, anything else with `port unreachable` (inet family)."""
        kind = be32(1, _REJECT_RESET) if protocol == socket.IPPROTO_TCP else be32(1, _REJECT_UNREACHABLE)
        return self._add("reject", kind, attribute(2, bytes([_PORT_UNREACHABLE])))

    def jump(self, chain: str) -> Rule:
        """Go on in another chain of the table."""
        return self._verdict(be32(1, NFT_JUMP), text(2, chain))

    def _verdict(self, *fields: bytes) -> Rule:
        return self._add("immediate", be32(1, 0), nested(2, nested(2, *fields)))


class TableWriter:
    """Collects the steps of one transaction on one table."""

    def __init__(self, family: int, table: str) -> None:
        self.family = family
        self.table = table
        self.steps: list[Step] = []
        self._sets = 0

    def _step(self, what: str, message: int, flags: int, *fields: bytes) -> None:
        kind = NFNL_SUBSYS_NFTABLES << 8 | message
        self.steps.append(Step(what, kind, flags, _header(self.family) + b"".join(fields)))

    def replace(self) -> None:
        """Make the table anew: creating it first makes the deletion sure to find one."""
        self.create()
        self.delete()
        self.create()

    def create(self) -> None:
        """Make the table if it is not there."""
        self._step(f"create table {self.table}", NEWTABLE, NLM_F_CREATE, text(1, self.table), be32(2, 0))

    def delete(self) -> None:
        """Delete the table and all in it; fails with ENOENT when it is not there."""
        self._step(f"delete table {self.table}", DELTABLE, 0, text(1, self.table))

    def chain(self, name: str) -> None:
        """A chain to jump to."""
        self._step(f"create chain {name}", NEWCHAIN, NLM_F_CREATE, text(1, self.table), text(3, name))

    def base_chain(self, name: str, kind: str, hook: Hook, priority: int) -> None:
        """A chain the kernel enters by itself at `hook`; its policy is accept: we only ever take away or rewrite."""
        self._step(
            f"create {kind} chain {name}",
            NEWCHAIN,
            NLM_F_CREATE,
            text(1, self.table),
            text(3, name),
            nested(4, be32(1, hook), be32(2, priority)),
            be32(5, NF_ACCEPT),
            text(7, kind),
        )

    def rule(self, chain: str, rule: Rule) -> None:
        """Append a rule."""
        self._step(
            f"add rule to {chain}",
            NEWRULE,
            NLM_F_CREATE | NLM_F_APPEND,
            text(1, self.table),
            text(2, chain),
            nested(4, rule.encode()),
        )

    def map(self, name: str, keys: Sequence[Field], values: Sequence[Field]) -> None:
        """A map from plain bytes to plain bytes."""
        self._set(name, keys, _MAP, be32(6, _concatenation(values)), be32(7, sum(field.size_bytes for field in values)))

    def verdict_map(self, name: str, key: Field, pairs: Iterable[tuple[bytes, str]]) -> None:
        """A map from a key to the chain to jump to, with its elements."""
        self._set(name, [key], _MAP, be32(6, _VERDICT_TYPE), be32(7, 0))
        listed = [
            nested(1, _value(1, value), nested(2, nested(2, be32(1, NFT_JUMP), text(2, chain))))
            for value, chain in pairs
        ]
        self._elements(name, listed)

    def networks(self, name: str, key: Field, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        """A set of address ranges; the networks do not overlap."""
        self._set(name, [key], _INTERVAL)
        listed = []
        for network in networks:
            listed.append(nested(1, _value(1, network.network_address.packed)))
            end = int(network.broadcast_address) + 1
            if end < 1 << (8 * key.size_bytes):
                packed = end.to_bytes(key.size_bytes, "big")
                listed.append(nested(1, _value(1, packed), be32(3, _INTERVAL_END)))
        self._elements(name, listed)

    def _set(self, name: str, keys: Sequence[Field], flags: int, *values: bytes) -> None:
        self._sets += 1
        self._step(
            f"create set {name}",
            NEWSET,
            NLM_F_CREATE,
            text(1, self.table),
            text(2, name),
            be32(3, flags),
            be32(4, _concatenation(keys)),
            be32(5, sum(field.size_bytes for field in keys)),
            *values,
            be32(10, self._sets),
        )

    def _elements(self, name: str, listed: Sequence[bytes]) -> None:
        # The list's length has 16 bits.
        for start in range(0, len(listed), 500):
            self._step(
                f"add elements to {name}",
                NEWSETELEM,
                NLM_F_CREATE | NLM_F_EXCL,
                text(1, self.table),
                text(2, name),
                nested(3, *listed[start : start + 500]),
            )

    def add_elements(self, name: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Add key, value pairs to a map; EEXIST when a key is there."""
        self._elements(name, [nested(1, _value(1, key), _value(2, value)) for key, value in pairs])

    def remove_elements(self, name: str, keys: Iterable[bytes]) -> None:
        """Remove keys from a map; ENOENT when one is not there."""
        listed = [nested(1, _value(1, key)) for key in keys]
        if listed:
            self._step(
                f"remove ports from {name}", DELSETELEM, 0, text(1, self.table), text(2, name), nested(3, *listed)
            )


class BaseChain(NamedTuple):
    """A base chain of any table on the host."""

    family: int
    table: str
    name: str
    hook: int
    drops: bool


def tables(channel: Channel, family: int = 0) -> list[str]:
    """Names of the tables of a family (0: all)."""
    step = Step("list tables", NFNL_SUBSYS_NFTABLES << 8 | GETTABLE, 0, _header(family))
    return [_string(attributes(body, 4).get(1, b"")) for body in channel.dump(step)]


def chain_names(channel: Channel, family: int, table: str) -> list[str]:
    """Names of the chains of one table."""
    step = Step("list chains", NFNL_SUBSYS_NFTABLES << 8 | GETCHAIN, 0, _header(family))
    listed = [attributes(body, 4) for body in channel.dump(step)]
    return [_string(fields[3]) for fields in listed if _string(fields.get(1, b"")) == table]


def base_chains(channel: Channel) -> list[BaseChain]:
    """Every base chain of the namespace, everyone's."""
    found = []
    step = Step("list chains", NFNL_SUBSYS_NFTABLES << 8 | GETCHAIN, 0, _header(0))
    for body in channel.dump(step):
        fields = attributes(body, 4)
        if 4 in fields:
            hook = struct.unpack(">I", attributes(fields[4]).get(1, b"\0\0\0\xff"))[0]
            policy = struct.unpack(">I", fields.get(5, b"\0\0\0\x01"))[0]
            found.append(BaseChain(body[0], _string(fields[1]), _string(fields[3]), hook, policy == NF_DROP))
    return found


def _header(family: int) -> bytes:
    return struct.pack("=BBH", family, 0, socket.htons(0))


def _value(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(1, value))


def interface_key(name: str) -> bytes:
    """An interface's name as a key."""
    return name.encode().ljust(16, b"\0")


def _width(value: bytes) -> int:
    """Registers a value takes."""
    return (len(value) + 3) // 4


def _concatenation(fields: Iterable[Field]) -> int:
    """nft's number of a concatenated type: six bits a field."""
    number = 0
    for field in fields:
        number = number << 6 | field.type
    return number


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
