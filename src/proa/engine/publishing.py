"""Published ports of containers: by which endpoint, moved when another one leads out, changed while they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from proa.engine.port_requests import changed_bindings, port_requests
from proa.engine.types import Container, EndpointRequest, PortBinding
from proa.network import BridgeNetwork, Endpoint, PortRequest, PublishedPort

if TYPE_CHECKING:
    from proa.engine.networks import Networks

__all__ = ["Publishing"]

Bindings = dict[str, list[PortBinding] | None]
_NO_WISH = EndpointRequest()


class Publishing:
    """The published ports of one engine's containers; callers hold the container's lock."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    def change(self, record: Container, add: Bindings, remove: Sequence[str]) -> None:
        """Publish and unpublish, at once when it runs; the record is as before when that fails."""
        before = record.host
        bindings = changed_bindings(before.port_bindings or {}, add, remove)
        record.host = msgspec.structs.replace(before, port_bindings=bindings)
        try:
            requests = port_requests(record)
            if record.state.running:
                self._change_live(record, requests, before.port_bindings or {}, bindings)
        except BaseException:
            record.host = before
            raise
        exposed = dict(record.config.exposed_ports or {})
        record.config.exposed_ports = {**exposed, **{port: {} for port in bindings}}

    def _change_live(
        self,
        record: Container,
        requests: Sequence[PortRequest],
        before: Mapping[str, list[PortBinding] | None],
        after: Mapping[str, list[PortBinding] | None],
    ) -> None:
        driver, endpoint = self._publisher(record)
        if driver is None or endpoint is None:
            return
        # What stays is taken from what is bound now, so that a port the kernel chose stays the same one.
        kept = [
            port
            for port in endpoint.ports
            if any(
                _is_of(port, key, place)
                for key, places in after.items()
                for place in places or [PortBinding()]
                if place in (before.get(key) or [PortBinding()])
            )
        ]
        fresh = [request for request in requests if not any(_covers(port, request) for port in kept)]
        gone = [port for port in endpoint.ports if port not in kept]
        driver.unpublish(endpoint, gone)
        try:
            driver.publish(endpoint, fresh, name=record.name)
        except BaseException:
            driver.publish(endpoint, [_again(port) for port in gone], name=record.name)
            raise
        self._note_ports(record, driver.endpoints()[record.id].ports)

    def settle(self, record: Container) -> None:
        """The published ports of a running container go by the endpoint that leads out now."""
        way_out = self.way_out(record, [settings.network for settings in record.endpoints])
        for settings in record.endpoints:
            driver = self._networks.driver_if_any(settings.network)
            if not isinstance(driver, BridgeNetwork) or settings.network == way_out:
                continue
            endpoint = driver.endpoints().get(record.id)
            if endpoint is not None and endpoint.ports:
                driver.unpublish(endpoint)
                record.ports = {}
        _, endpoint = self._publisher(record)
        if endpoint is None or not endpoint.ports:
            record.ports = {}
            self.publish(record)

    def way_out(self, record: Container, names: Sequence[str]) -> str:
        """The network that default routes and published ports go by; empty when none leads out."""
        leading = []
        for name in names:
            driver = self._networks.driver_if_any(name)
            if driver is not None and not driver.spec.internal:
                leading.append((-record.networks.get(name, _NO_WISH).gw_priority, name))
        return min(leading)[1] if leading else ""

    def _publisher(self, record: Container) -> tuple[BridgeNetwork | None, Endpoint | None]:
        driver = self._networks.driver_if_any(self.way_out(record, [settings.network for settings in record.endpoints]))
        if not isinstance(driver, BridgeNetwork):
            return None, None
        return driver, driver.endpoints().get(record.id)

    def publish(self, record: Container) -> None:
        """Publish what the record asks for; nothing when no endpoint leads out. Raises Conflict for a taken port."""
        requests = port_requests(record)
        driver, endpoint = self._publisher(record) if requests else (None, None)
        if driver is not None and endpoint is not None:
            self._note_ports(record, driver.publish(endpoint, requests, name=record.name))

    def _note_ports(self, record: Container, ports: Sequence[PublishedPort]) -> None:
        record.ports = {}
        for port in ports:
            binding = PortBinding(host_ip=port.host_ip, host_port=str(port.host_port))
            record.ports.setdefault(f"{port.container_port}/{port.protocol}", []).append(binding)


def _is_of(port: PublishedPort, key: str, place: PortBinding) -> bool:
    """Whether that binding is what published the port."""
    number, _, protocol = key.partition("/")
    if (str(port.container_port), port.protocol) != (number, protocol or "tcp"):
        return False
    if place.host_ip and place.host_ip != port.host_ip:
        return False
    first, _, last = place.host_port.partition("-")
    return not first or int(first) <= port.host_port <= int(last or first)


def _covers(port: PublishedPort, request: PortRequest) -> bool:
    place = PortBinding(
        host_ip=request.host_ip,
        host_port=f"{request.host_port}-{max(request.host_port_end, request.host_port)}" if request.host_port else "",
    )
    return _is_of(port, f"{request.container_port}/{request.protocol}", place)


def _again(port: PublishedPort) -> PortRequest:
    """The request for exactly this port."""
    return PortRequest(
        container_port=port.container_port, protocol=port.protocol, host_ip=port.host_ip, host_port=port.host_port
    )
