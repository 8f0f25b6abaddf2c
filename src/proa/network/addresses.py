"""Which subnet a network gets on a host full of other networks, and which address a container gets in it.

Nothing here touches the kernel: the caller brings what the host uses already. Many engines share a machine, so the
search starts at a place that depends on the engine's root and the choice is then claimed on the bridge (see `bridge`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from proa.errors import Conflict, Exhausted, Invalid

__all__ = [
    "DEFAULT_POOLS",
    "SUBNET_PREFIX",
    "AddressPool",
    "AnyAddress",
    "AnyNetwork",
    "choose_subnet",
    "choose_unique_local",
    "parse_subnet",
]

AnyAddress = IPv4Address | IPv6Address
AnyNetwork = IPv4Network | IPv6Network

# Away from what others take by default: docker 172.17-31 and 192.168, podman 10.88-89, kubernetes 10.42-43, 10.96-111
# and 10.244. The second is for hosts whose VPN routes all of 10/8.
DEFAULT_POOLS = (IPv4Network("10.120.0.0/13"), IPv4Network("172.30.0.0/15"), IPv4Network("192.168.128.0/17"))

# 1021 containers: a Linux bridge has at most 1023 ports.
SUBNET_PREFIX = 22


def parse_subnet(text: str) -> AnyNetwork:
    """A subnet as its owner wrote it. Raises Invalid with Docker's words when host bits are set."""
    try:
        subnet = ip_network(text, strict=False)
        exact = ip_address(text.partition("/")[0]) == subnet.network_address
    except ValueError:
        message = f"invalid subnet {text}: invalid CIDR block notation"
        raise Invalid(message, code="subnet-syntax", subject=text) from None
    if not exact:
        raise Invalid(f"invalid subnet {text}: it should be {subnet}", code="subnet-syntax", subject=text)
    return subnet


def choose_subnet(
    pools: Sequence[IPv4Network], taken: Iterable[IPv4Network], seed: int, prefix: int = SUBNET_PREFIX
) -> IPv4Network:
    """The first subnet of the pools, from a place that `seed` decides on, that overlaps nothing taken.

    taken: addresses, routes and name servers of the host; a default route (prefix 0) must not be among them.
    Raises Exhausted naming the clashes.
    """
    spans = sorted({(int(net.network_address), int(net.broadcast_address)) for net in taken})
    size = 1 << (32 - prefix)
    for pool in pools:
        if pool.prefixlen > prefix:
            continue
        count = pool.num_addresses // size
        base = int(pool.network_address)
        for step in range(count):
            start = base + (seed + step) % count * size
            if not any(first <= start + size - 1 and start <= last for first, last in spans):
                return IPv4Network((start, prefix))
    clashes = sorted({str(net) for net in taken if any(net.overlaps(pool) for pool in pools)})
    raise Exhausted(
        f"no free subnet in {', '.join(map(str, pools))}: this host uses {', '.join(clashes) or 'none of it'}",
        code="subnet-exhausted",
        hint="configure an address pool that no address or route of this host overlaps",
    )


def choose_unique_local(root_number: int, seed: int, taken: Iterable[IPv6Network]) -> IPv6Network:
    """A /64 of the engine's own unique local prefix (RFC 4193: fd00::/8 and 40 bits that nobody else should have).

    Raises Exhausted when the host uses all of the prefix.
    """
    prefix = b"\xfd" + hashlib.sha256(b"ula" + root_number.to_bytes(8, "big")).digest()[:5]
    used = list(taken)
    for step in range(1 << 16):
        number = (seed + step) & 0xFFFF
        subnet = IPv6Network((prefix + number.to_bytes(2, "big") + bytes(8), 64))
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise Exhausted(
        f"no free IPv6 subnet in {IPv6Network((prefix + bytes(10), 48))}: this host routes all of it",
        code="subnet-exhausted",
    )


class AddressPool:
    """The addresses of one subnet: one is the gateway's, the others go round so that a freed one rests a while.

    within: the part of the subnet that addresses nobody asked for come from; reserved: addresses that are not given.
    Not thread-safe, its network holds a lock.
    """

    def __init__(
        self,
        subnet: AnyNetwork,
        network: str,
        *,
        gateway: AnyAddress | None = None,
        within: AnyNetwork | None = None,
        reserved: Iterable[AnyAddress] = (),
    ) -> None:
        self.subnet = subnet
        self._network = network
        self._low = int(subnet.network_address) + 1
        self._high = int(subnet.broadcast_address) + subnet.version // 6  # IPv6 has no broadcast address
        part = within or subnet
        self._first = max(self._low, int(part.network_address))
        self._end = min(self._high, int(part.broadcast_address) + 1)
        self.gateway: AnyAddress = gateway or subnet.network_address + 1
        self._kept = {int(self.gateway), *(int(address) for address in reserved)}
        self._next = self._first
        self._used: set[int] = set()

    def take(self, wanted: str = "") -> AnyAddress:
        """An address nobody has: the wanted one, else the next free. Raises Exhausted, Conflict, Invalid."""
        if wanted:
            return self._take_wanted(wanted)
        span = self._end - self._first
        for step in range(min(span, len(self._used) + len(self._kept) + 1)):
            number = self._first + (self._next - self._first + step) % span
            if number not in self._used and number not in self._kept:
                self._used.add(number)
                self._next = number + 1
                return self._address(number)
        raise Exhausted(
            f"no available IPv{self.subnet.version} addresses on this network's address pools: {self._network} "
            f"({self.subnet})",
            code="addresses-exhausted",
            subject=self._network,
            hint="remove containers or use another network",
        )

    def _address(self, number: int) -> AnyAddress:
        return IPv4Address(number) if self.subnet.version == 4 else IPv6Address(number)

    def _take_wanted(self, wanted: str) -> AnyAddress:
        version = self.subnet.version
        try:
            address = ip_address(wanted)
            if address.version != version or "%" in wanted:
                raise ValueError
        except ValueError as error:
            raise Invalid(f"invalid IPv{version} address: {wanted}", code="address-syntax", subject=wanted) from error
        number = int(address)
        if not self._low <= number < self._high:
            raise Invalid(
                f"no configured subnet contains IP address {address}", code="address-outside", subject=str(address)
            )
        if number in self._used or number in self._kept:
            raise Conflict("Address already in use", code="address-in-use", subject=str(address))
        self._used.add(number)
        return address

    def reserve(self, address: AnyAddress) -> None:
        """Mark an address that a record says is in use."""
        self._used.add(int(address))

    def release(self, address: AnyAddress) -> None:
        """Give an address back; one that was not taken is fine."""
        self._used.discard(int(address))

    @property
    def used(self) -> int:
        """How many addresses are given."""
        return len(self._used)
