"""`--network` and its companions: from options to NetworkMode and EndpointsConfig (Docker Engine API 1.51)."""

from __future__ import annotations

from proa.cli.values import key_values
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options

__all__ = ["endpoints_of", "parse_network"]

_ADDRESSES = {"ip": "IPv4Address", "ip6": "IPv6Address"}


def parse_network(text: str) -> tuple[str, dict[str, Any]]:
    """`NAME` or `name=NAME,alias=A,ip=I,ip6=I,mac-address=M,gw-priority=N,driver-opt=K=V`: name and endpoint.

    Raises Invalid.
    """
    if "=" not in text:
        return text, {}
    name = ""
    endpoint: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals:
            raise Invalid(f"invalid field `{part}` of --network: must be a key=value pair", code="bad-network")
        if key == "name":
            name = value
        elif key == "alias":
            endpoint.setdefault("Aliases", []).append(value)
        elif key in _ADDRESSES:
            endpoint.setdefault("IPAMConfig", {})[_ADDRESSES[key]] = value
        elif key == "mac-address":
            endpoint["MacAddress"] = value
        elif key == "gw-priority":
            endpoint["GwPriority"] = _priority(value)
        elif key == "driver-opt":
            endpoint.setdefault("DriverOpts", {}).update(key_values([value], "network", need_value=True))
        else:
            raise Invalid(f"invalid field key `{key}` of --network", code="bad-network")
    if not name:
        raise Invalid(f"--network `{text}` names no network", code="bad-network", hint="write name=NETWORK,...")
    return name, endpoint


def endpoints_of(options: Options) -> tuple[str, dict[str, dict[str, Any]]]:
    """NetworkMode ("" when none was asked for) and EndpointsConfig. The single options are the first network's."""
    parsed = [parse_network(text) for text in [*options.texts("network"), *options.texts("net")]]
    first = parsed[0][0] if parsed else ""
    endpoints = dict(parsed)
    if len(endpoints) != len(parsed):
        raise Invalid("a network is named twice", code="bad-network")
    own = endpoints.get(first, {})
    addresses = {key: options.text(name) for name, key in _ADDRESSES.items() if options.given(name)}
    if addresses:
        own.setdefault("IPAMConfig", {}).update(addresses)
    if options.given("network-alias"):
        own.setdefault("Aliases", []).extend(options.texts("network-alias"))
    if options.given("mac-address"):
        own["MacAddress"] = options.text("mac-address")
    if first:
        endpoints[first] = own
    elif own:
        endpoints["default"] = own
    if len(endpoints) == 1 and not own:
        endpoints = {}
    return first, endpoints


def _priority(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise Invalid(f"invalid gw-priority `{text}`: not a whole number", code="bad-network")
    return int(text)
