"""What a network shall be: a plain record that its owner keeps and hands over."""

from __future__ import annotations

import msgspec

__all__ = ["NetworkSpec", "SubnetSpec"]


class SubnetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One subnet in CIDR notation; gateway: its first address when empty; ip_range: where addresses nobody asked for
    come from; reserved: addresses that are not given, by what they are for.
    """

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    reserved: dict[str, str] = {}


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A bridge network.

    key: its id, a file name; name: for messages; subnets: at most one of each family, and of the families asked for
    those that are missing are chosen; bridge: the link's name, derived from the key when empty; mtu 0: that of the
    host's default route; publish_address: the host address of ports published without one.
    """

    key: str
    name: str
    subnets: tuple[SubnetSpec, ...] = ()
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    icc: bool = True
    masquerade: bool = True
    mtu: int = 0
    bridge: str = ""
    publish_address: str = "0.0.0.0"  # noqa: S104 -- Docker's default; the engine's configuration narrows it
