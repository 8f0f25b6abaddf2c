"""Which container ports are to be published where: from a container's record, and from the words of an update."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from proa.engine.types import Container, PortBinding
from proa.errors import Invalid, NotFound
from proa.network import PortRequest

__all__ = ["changed_bindings", "port_requests", "world_warning"]

Bindings = dict[str, list[PortBinding] | None]


def port_requests(record: Container) -> list[PortRequest]:
    """What to publish: `-p`, and with `-P` every exposed port. Raises Invalid."""
    out = []
    for spec, bindings in (record.host.port_bindings or {}).items():
        port, protocol = _container_port(spec)
        out += [_request(port, protocol, binding) for binding in bindings or [PortBinding()]]
    if record.host.publish_all_ports:
        bound = {(r.container_port, r.protocol) for r in out}
        for spec in record.config.exposed_ports or {}:
            port, protocol = _container_port(spec)
            if (port, protocol) not in bound:
                out.append(PortRequest(container_port=port, protocol=protocol))
    for request in out:
        request.check()
    return out


def _request(port: int, protocol: str, binding: PortBinding) -> PortRequest:
    first, _, last = binding.host_port.partition("-")
    return PortRequest(
        container_port=port,
        protocol=protocol,
        host_ip=binding.host_ip,
        host_port=_number(first, binding.host_port),
        host_port_end=_number(last, binding.host_port),
    )


def changed_bindings(bindings: Bindings, add: Bindings, remove: Sequence[str]) -> Bindings:
    """Port bindings after an update.

    remove: `80/tcp` for all of a container port, or `[address:]host_port:80/tcp` for one binding. Raises NotFound for
    what is not published, Invalid.
    """
    changed: Bindings = {port: list(places or [PortBinding()]) for port, places in bindings.items()}
    for text in remove:
        where, _, spec = text.rpartition(":")
        port, protocol = _container_port(spec)
        key = f"{port}/{protocol}"
        address, _, number = where.rpartition(":")
        address = address.strip("[]")
        places = changed.pop(key, None) or []
        rest = [
            place for place in places if where and (place.host_port != number or (address and place.host_ip != address))
        ]
        if len(rest) == len(places):
            raise NotFound(f"port {text} is not published", code="port-not-published", subject=text)
        if rest:
            changed[key] = rest
    for spec, wanted in add.items():
        port, protocol = _container_port(spec)
        for place in wanted or [PortBinding()]:
            _request(port, protocol, place).check()
            known = changed.setdefault(f"{port}/{protocol}", [])
            if known is not None and place not in known:
                known.append(place)
    return changed


def world_warning(requests: Sequence[PortRequest], publish_address: str) -> list[str]:
    """A sentence about ports that every network of this host will reach, because no address was named."""
    opened = [r for r in requests if ip_address(r.host_ip or publish_address).is_unspecified]
    if not opened:
        return []
    ports = ", ".join(f"{r.container_port}/{r.protocol}" for r in opened)
    text = f"published on all addresses of this host, for every network that reaches it: {ports}. Name an address "
    return [text + "(-p 127.0.0.1:8080:80) or set publish-address in the configuration to keep a port to yourself."]


def _container_port(spec: str) -> tuple[int, str]:
    number, _, protocol = spec.partition("/")
    return _number(number, spec), (protocol or "tcp").lower()


def _number(text: str, whole: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise Invalid(f"invalid port specification: {whole!r}", code="port-range", subject=whole)
    return int(text)
