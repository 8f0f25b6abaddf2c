"""What a container asks of a network: checked, and translated to what `proa.network` attaches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from proa.engine.network_records import NetworkRecord
from proa.engine.types import Container, EndpointRequest
from proa.errors import Invalid
from proa.network import AttachRequest
from proa.network.endpoint import parse_mac

__all__ = ["attach_request", "check_request", "first_free_interface", "primary"]

_INTERFACE_OPTION = "com.docker.network.endpoint.ifname"
_INTERFACE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})", re.ASCII)
_FAMILIES = (("IPv4Address", 4), ("IPv6Address", 6))


def primary(record: Container) -> str:
    """The network a container is first of all in: `bridge`, `none`, `host`, `container:<name>` or a network's name."""
    if record.config.network_disabled:
        return "none"
    mode = record.host.network_mode
    return "bridge" if mode in ("", "default") else mode


def check_request(network: NetworkRecord, wanted: EndpointRequest) -> None:
    """Raises Invalid with Docker's words for what this network does not give."""
    addresses = _addresses(wanted.ipam_config)
    if addresses and not network.user_defined:
        raise Invalid("user specified IP address is supported on user defined networks only", code="static-address")
    given = {6 if ":" in subnet else 4 for subnet in network.given}
    if any(version not in given for version in addresses):
        raise Invalid(
            "user specified IP address is supported only when connecting to networks with user configured subnets",
            code="static-address",
        )
    if wanted.aliases and not network.user_defined:
        raise Invalid(
            "network-scoped alias is supported only for containers in user defined networks", code="alias-unsupported"
        )
    for alias in wanted.aliases or []:
        if not _ALIAS.fullmatch(alias):
            raise Invalid(f"invalid network alias: {alias!r}", code="host-name", subject=alias)
    if wanted.mac_address:
        parse_mac(wanted.mac_address)
    interface = (wanted.driver_opts or {}).get(_INTERFACE_OPTION, "")
    if interface and (not _INTERFACE.fullmatch(interface) or interface == "lo"):
        raise Invalid(f"invalid interface name: {interface!r}", code="interface-name", subject=interface)


def attach_request(wanted: EndpointRequest, interface: str, *, default_route: bool) -> AttachRequest:
    """The wish for one attachment."""
    addresses = _addresses(wanted.ipam_config)
    return AttachRequest(
        interface=(wanted.driver_opts or {}).get(_INTERFACE_OPTION) or interface,
        ip=addresses.get(4, ""),
        ip6=addresses.get(6, ""),
        mac=wanted.mac_address,
        default_route=default_route,
    )


def first_free_interface(record: Container) -> str:
    """The first ethN that no endpoint of a running container has."""
    taken = {settings.interface for settings in record.endpoints}
    return next(name for number in range(4096) if (name := f"eth{number}") not in taken)


def _addresses(config: Mapping[str, Any] | None) -> dict[int, str]:
    found = {}
    for key, version in _FAMILIES:
        text = (config or {}).get(key) or ""
        if not text:
            continue
        try:
            valid = isinstance(text, str) and ip_address(text).version == version
        except ValueError:
            valid = False
        if not valid:
            raise Invalid(f"invalid IPv{version} address: {text}", code="address-syntax", subject=str(text))
        found[version] = text
    return found
