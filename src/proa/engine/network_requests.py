"""From what `network create` was asked to a network's record and to what `proa.network` builds.

Options have Docker's names (the bridge, macvlan and ipvlan drivers' reference).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from proa.engine.clock import now
from proa.engine.names import new_id
from proa.engine.network_records import NetworkRecord, NetworkRequest, Pool
from proa.errors import Denied, Invalid, NotFound, Unsupported
from proa.network import NetworkSpec, SubnetSpec
from proa.network.addresses import parse_subnet
from proa.network.sysctls import has_ipv6

__all__ = ["DRIVERS", "bridge_spec", "new_record"]

DRIVERS = ("bridge", "macvlan", "ipvlan")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)
_LINK = re.compile(r"[^\s/:\x00-\x1f\x7f-\U0010ffff]{1,15}", re.ASCII)
_MTU = "com.docker.network.driver.mtu"
_BRIDGE = "com.docker.network.bridge."
_FLAGS = {f"{_BRIDGE}enable_icc", f"{_BRIDGE}enable_ip_masquerade", f"{_BRIDGE}default_bridge"}


def new_record(request: NetworkRequest) -> NetworkRecord:
    """The record of a network that is to be made. Raises Invalid, Denied, NotFound, Unsupported."""
    driver = request.driver or "bridge"
    if not _NAME.fullmatch(request.name) or len(request.name) > 255:
        raise Invalid(
            f'invalid network name "{request.name[:300]}": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed',
            code="name-invalid",
        )
    if request.name in ("bridge", "host", "none", "default"):
        raise Denied(f"operation is not permitted on predefined {request.name} network", code="network-predefined")
    if driver in ("host", "null"):
        raise Denied(f'only one instance of "{driver}" network is allowed', code="network-single")
    if driver not in DRIVERS:
        raise NotFound(
            f'could not find plugin {driver} in v1 plugin registry: plugin "{driver}" not found', code="plugin"
        )
    if request.ingress or request.config_only or request.scope not in ("", "local"):
        raise Unsupported("swarm networks are not supported: scope is local", code="network-scope")
    if request.ipam_driver not in ("", "default"):
        raise NotFound(f"could not resolve IPAM driver {request.ipam_driver}: plugin not found", code="ipam-driver")
    pools = [_check_pool(pool) for pool in request.pools if pool.subnet or pool.gateway or pool.ip_range]
    versions = [ip_network(pool.subnet).version for pool in pools]
    if len(set(versions)) != len(versions):
        raise Invalid(f"{driver} driver doesn't support multiple subnets", code="subnet-twice")
    ipv6 = request.ipv6 if request.ipv6 is not None else 6 in versions or (driver == "bridge" and has_ipv6())
    ipv4 = request.ipv4 is not False
    if 6 in versions and request.ipv6 is False:
        pools = [pool for pool in pools if ip_network(pool.subnet).version == 4]
    if ipv6 and not has_ipv6():
        raise Unsupported("this host's kernel has no IPv6", code="ipv6-missing")
    if not (ipv4 or ipv6):
        raise Invalid("IPv4 or IPv6 must be enabled", code="family-missing")
    record = NetworkRecord(
        name=request.name,
        id=new_id(),
        driver=driver,
        created=now(),
        internal=request.internal,
        attachable=request.attachable,
        ipv4=ipv4,
        ipv6=ipv6,
        pools=sorted(pools, key=lambda pool: ip_network(pool.subnet).version),
        given=[pool.subnet for pool in pools],
        ipam_options=request.ipam_options,
        options=dict(request.options),
        labels=dict(request.labels),
    )
    check_options(record.options)
    return record


def check_options(options: Mapping[str, str]) -> None:
    """Raises Invalid for a value that its option does not take; unknown options are kept and mean nothing."""
    for key in _FLAGS & options.keys():
        _flag(options, key, default=False)
    _mtu(options)
    if (name := options.get(f"{_BRIDGE}name")) and (not _LINK.fullmatch(name) or name in (".", "..")):
        raise Invalid(f"invalid bridge name {name!r}: at most 15 characters, no blank, no slash", code="link-name")
    if address := options.get(f"{_BRIDGE}host_binding_ipv4"):
        _address(address)


def bridge_spec(record: NetworkRecord, publish_address: str, mtu: int = 0) -> NetworkSpec:
    """What the bridge driver shall build. Raises Invalid."""
    options = record.options
    return NetworkSpec(
        key=record.id if record.user_defined else record.name,
        name=record.name,
        subnets=tuple(
            SubnetSpec(subnet=pool.subnet, gateway=pool.gateway, ip_range=pool.ip_range, reserved=pool.reserved)
            for pool in record.pools
        ),
        ipv4=record.ipv4,
        ipv6=record.ipv6,
        internal=record.internal,
        icc=_flag(options, f"{_BRIDGE}enable_icc", default=True),
        masquerade=_flag(options, f"{_BRIDGE}enable_ip_masquerade", default=True),
        mtu=_mtu(options) or mtu,
        bridge=options.get(f"{_BRIDGE}name", ""),
        publish_address=options.get(f"{_BRIDGE}host_binding_ipv4") or publish_address,
    )


def _check_pool(pool: Pool) -> Pool:
    if not pool.subnet:
        raise Invalid("invalid network config: a gateway or an ip-range needs a subnet", code="subnet-missing")
    subnet = parse_subnet(pool.subnet)
    limit = 30 if subnet.version == 4 else 126
    if subnet.prefixlen > limit or subnet.prefixlen < 8:
        raise Invalid(f"invalid subnet {pool.subnet}: want a prefix of 8 to {limit} bits", code="subnet-size")
    for what, text in (("gateway", pool.gateway), *(("auxiliary address", a) for a in pool.reserved.values())):
        if text and _address(text) not in subnet:
            raise Invalid(f"invalid {what} {text}: it is not in subnet {subnet}", code="address-outside")
    if pool.ip_range:
        part = parse_subnet(pool.ip_range)
        if part.version != subnet.version or not (
            subnet.network_address <= part.network_address and part.broadcast_address <= subnet.broadcast_address  # type: ignore[operator]
        ):
            raise Invalid(f"invalid ip-range {part}: it is not in subnet {subnet}", code="address-outside")
    return Pool(subnet=str(subnet), ip_range=pool.ip_range, gateway=pool.gateway, reserved=pool.reserved)


def _address(text: str):  # type: ignore[no-untyped-def]
    try:
        return ip_address(text)
    except ValueError:
        raise Invalid(f"invalid IP address: {text!r}", code="address-syntax", subject=text) from None


def _flag(options: Mapping[str, str], key: str, *, default: bool) -> bool:
    text = options.get(key, "")
    if text == "":
        return default
    if text.lower() in ("true", "1", "t"):
        return True
    if text.lower() in ("false", "0", "f"):
        return False
    raise Invalid(f"invalid value for {key}: {text!r} is neither true nor false", code="option-value", subject=key)


def _mtu(options: Mapping[str, str]) -> int:
    text = options.get(_MTU, "")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and 68 <= int(text[:7]) <= 65535 and len(text) <= 5):
        raise Invalid(f"invalid value for {_MTU}: {text!r}: want 68 to 65535", code="option-value", subject=_MTU)
    return int(text)
