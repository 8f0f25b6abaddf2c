"""Which subnet a network gets on a host full of other networks, and which address a container gets in it.

Nothing here touches the kernel: the caller brings what the host uses already. Many engines share a machine, so the
search starts at a place that depends on the engine's root and the choice is then claimed on the bridge (see `bridge`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

from proa.errors import Conflict, Exhausted, Invalid

__all__ = ["DEFAULT_POOLS", "SUBNET_PREFIX", "AddressPool", "choose_subnet"]

# Away from what others take by default: docker 172.17-31 and 192.168, podman 10.88-89, kubernetes 10.42-43, 10.96-111
# and 10.244. The second is for hosts whose VPN routes all of 10/8.
DEFAULT_POOLS = (IPv4Network("10.120.0.0/13"), IPv4Network("172.30.0.0/15"), IPv4Network("192.168.128.0/17"))

# 1021 containers: a Linux bridge has at most 1023 ports.
SUBNET_PREFIX = 22


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


class AddressPool:
    """The addresses of one subnet: the first is the gateway's, the others go round so that a freed one rests a while.

    Not thread-safe, its network holds a lock.
    """

    def __init__(self, subnet: IPv4Network, network: str) -> None:
        self.subnet = subnet
        self.gateway = subnet.network_address + 1
        self._network = network
        self._first = int(subnet.network_address) + 2
        self._end = int(subnet.broadcast_address)
        self._next = self._first
        self._used: set[int] = set()

    def take(self, wanted: str = "") -> IPv4Address:
        """An address nobody has: the wanted one, else the next free. Raises Exhausted, Conflict, Invalid."""
        if wanted:
            return self._take_wanted(wanted)
        span = self._end - self._first
        for step in range(span):
            number = self._first + (self._next - self._first + step) % span
            if number not in self._used:
                self._used.add(number)
                self._next = number + 1
                return IPv4Address(number)
        raise Exhausted(
            f"no available IPv4 addresses on this network's address pools: {self._network} ({self.subnet})",
            code="addresses-exhausted",
            subject=self._network,
            hint="remove containers or use another network",
        )

    def _take_wanted(self, wanted: str) -> IPv4Address:
        try:
            address = IPv4Address(wanted)
        except ValueError as error:
            raise Invalid(f"invalid IPv4 address: {wanted!r}", code="address-syntax", subject=wanted) from error
        number = int(address)
        if not self._first <= number < self._end:
            raise Invalid(
                f"no configured subnet contains IP address {address}", code="address-outside", subject=str(address)
            )
        if number in self._used:
            raise Conflict(f"Address already in use: {address}", code="address-in-use", subject=str(address))
        self._used.add(number)
        return address

    def reserve(self, address: IPv4Address) -> None:
        """Mark an address that a record says is in use."""
        self._used.add(int(address))

    def release(self, address: IPv4Address) -> None:
        """Give an address back; one that was not taken is fine."""
        self._used.discard(int(address))
