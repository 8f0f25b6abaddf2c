"""Who is called what, network by network: what the engine tells, and what containers ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from proa.resolver.message import domain_name

__all__ = ["Names", "address_of_reverse"]

Address = IPv4Address | IPv6Address


class Names:
    """Names of containers by network. A name may be several containers'; then their order goes round."""

    def __init__(self) -> None:
        self._titles: dict[str, str] = {}
        self._names: dict[str, dict[str, dict[str, tuple[Address, ...]]]] = {}
        self._reverse: dict[str, dict[Address, str]] = {}
        self._members: dict[tuple[str, str], tuple[tuple[str, ...], tuple[Address, ...]]] = {}
        self._turns = {4: 0, 6: 0}

    def put(self, network: str, title: str, container: str, names: Sequence[str], addresses: Iterable[str]) -> None:
        """A container has these names and addresses on a network called `title`, and no longer others."""
        self.forget(network, container)
        found = tuple(ip_address(text) for text in addresses)
        lowered = tuple(name.lower() for name in names)
        self._titles[network] = title.lower()
        for name in lowered:
            self._names.setdefault(network, {}).setdefault(name, {})[container] = found
        # Docker bounds no name of a container; of a domain name each part is.
        if domain := next(filter(_is_domain, (f"{name}.{title.lower()}" for name in lowered)), ""):
            self._reverse.setdefault(network, {}).update(dict.fromkeys(found, domain))
        self._members[network, container] = (lowered, found)

    def forget(self, network: str, container: str) -> None:
        """The container is no longer on the network; one that was not is fine."""
        names, addresses = self._members.pop((network, container), ((), ()))
        table = self._names.get(network, {})
        for name in names:
            holders = table.get(name, {})
            holders.pop(container, None)
            if not holders:
                table.pop(name, None)
        for address in addresses:
            self._reverse.get(network, {}).pop(address, None)
        if not table:
            self._names.pop(network, None)
            self._reverse.pop(network, None)

    def clear(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]

    def lookup(self, networks: Iterable[str], name: str, version: int = 4) -> list[Address] | None:
        """The addresses of a name on the first network that knows it, the next one first each time; None: unknown.

        version: what was asked for; askers ask for both families in turn, so each has turns of its own.
        """
        for network in networks:
            table = self._names.get(network, {})
            holders = table.get(name)
            suffix = "." + self._titles.get(network, "")
            if holders is None and len(suffix) > 1 and name.endswith(suffix):
                holders = table.get(name.removesuffix(suffix))
            if holders is not None:
                found = list(holders.values())
                self._turns[version] += 1
                start = self._turns[version] % len(found)
                return [address for each in found[start:] + found[:start] for address in each]
        return None

    def reverse(self, networks: Iterable[str], address: Address) -> str | None:
        """The name of an address on these networks."""
        for network in networks:
            name = self._reverse.get(network, {}).get(address)
            if name is not None:
                return name
        return None


def _is_domain(name: str) -> bool:
    try:
        return bool(domain_name(name))
    except ValueError:
        return False


def address_of_reverse(name: str) -> Address | None:
    """The address that `4.3.2.1.in-addr.arpa` or its like under ip6.arpa asks about (RFC 1035 3.5, 3596 2.5)."""
    try:
        if name.endswith(".in-addr.arpa"):
            parts = name.removesuffix(".in-addr.arpa").split(".")
            return IPv4Address(".".join(reversed(parts)))
        if name.endswith(".ip6.arpa"):
            digits = "".join(reversed(name.removesuffix(".ip6.arpa").split(".")))
            return IPv6Address(bytes.fromhex(digits)) if len(digits) == 32 else None
    except ValueError:
        pass
    return None
