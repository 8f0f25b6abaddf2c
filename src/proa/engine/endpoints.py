"""Endpoints: containers join networks when they start, are connected and disconnected while they run, and leave.

A container's record names its networks (`networks`, whatever happens) and, while it runs, its endpoints. Its default
routes and its published ports go by one of them: the one with the highest priority (`gw_priority`, then the name) that
leads out. Whatever changes the set settles both anew.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from proa.engine.catalog import Entry
from proa.engine.joined import Joined
from proa.engine.name_files import files_of, rewrite_hosts, rewrite_resolv_conf
from proa.engine.network_wishes import attach_request, check_request, first_free_interface, primary
from proa.engine.port_requests import port_requests, world_warning
from proa.engine.publishing import Publishing
from proa.engine.types import Container, EndpointRequest, EndpointSettings, PortBinding
from proa.errors import Conflict, Denied, NotFound, ProaError, Unavailable
from proa.monitor.nursery import NetworkNamespace
from proa.network import BridgeNetwork, Endpoint
from proa.network.routes import set_default_routes

if TYPE_CHECKING:
    from proa.engine.engine import Engine
    from proa.engine.network_records import NetworkRecord

__all__ = ["Endpoints"]


class Endpoints:
    """What containers of one engine do with its networks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._networks = engine.networks
        self._publishing = Publishing(engine.networks)

    # -- before and around a start -------------------------------------------------------------------------------------

    def check(self, record: Container) -> list[str]:
        """Make the record's networks complete and refuse what cannot be started; returns warnings.

        Raises NotFound, Conflict, Invalid with Docker's words.
        """
        mode = primary(record)
        requests = port_requests(record)
        if mode.startswith("container:"):
            self._engine.catalog.find(mode.removeprefix("container:"))
            if requests:
                raise Conflict(
                    "conflicting options: port publishing and the container type network mode",
                    code="ports-and-network",
                )
            record.networks = {}
            return []
        asked = dict(record.networks)
        record.networks = {}
        for name in (mode, *sorted(asked)):
            network = self._networks.find(name)
            wanted = asked.get(name) or asked.get(network.name) or EndpointRequest()
            if network.name not in record.networks:
                check_request(network, wanted)
                record.networks[network.name] = wanted
        private = {name for name in record.networks if name in ("host", "none")}
        if private and len(record.networks) > 1:
            raise Conflict(_PRIVATE.format(name=min(private)), code="network-conflict")
        if private:
            return []
        return world_warning(requests, self._engine.config.publish_address)

    def join(self, entry: Entry) -> Joined:
        """Connect a container that is about to start, publish its ports. Raises Conflict for a port that is taken …"""
        record = entry.record
        mode = primary(record)
        record.endpoints, record.ports = [], {}
        if mode.startswith("container:"):
            return self._join_other(mode.removeprefix("container:"))
        try:
            first = self._networks.find(mode).name
        except NotFound:
            first = ""  # removed since; what is left is joined
        names = sorted(record.networks, key=lambda name: (name != first, name))
        if "host" in names:
            record.endpoints = [self._settings(record, self._networks.find("host"))]
            hostname = record.config.hostname or socket.gethostname()
            return Joined("host", hostname, files_of(record, own_namespace=False))
        if "none" in names or not names:
            record.endpoints = [self._settings(record, self._networks.find("none"))] if names else []
            return Joined(None, record.config.hostname, files_of(record))
        networks = [self._networks.find(name) for name in names]
        resolver = any(network.user_defined for network in networks)
        netns = self._engine.make_netns(record.id_maps, names=resolver)
        try:
            sysctls = self._attach_all(record, networks, netns)
            try:
                self._publishing.publish(record)
                if resolver:
                    self._engine.resolver.serve(record, netns)
                gateway = self._host_gateway(record)
                files = files_of(record, host_gateway=gateway, resolver=resolver)
            except BaseException:
                self.leave(entry)
                raise
        except BaseException:
            _close(netns)
            raise
        return Joined(None, record.config.hostname, files, netns, sysctls)

    def _attach_all(
        self, record: Container, networks: Sequence[NetworkRecord], netns: NetworkNamespace
    ) -> Mapping[str, str]:
        way_out = self._publishing.way_out(record, [network.name for network in networks])
        sysctls: dict[str, str] = {}
        try:
            for number, network in enumerate(networks):
                wanted = record.networks[network.name]
                request = attach_request(wanted, f"eth{number}", default_route=network.name == way_out)
                endpoint = self._networks.driver(network.name).attach(
                    netns.netns_fd, netns.route_fd, record.id, request
                )
                sysctls.update(endpoint.sysctls)
                record.endpoints.append(self._settings(record, network, endpoint))
                self._networks.announce("connect", network.name, record.id)
        except BaseException:
            self._detach_all(record)
            raise
        return sysctls

    def _join_other(self, name: str) -> Joined:
        other = self._engine.catalog.find(name)
        if not other.record.state.running:
            raise Conflict(
                f"cannot join network of a non running container: {other.record.id}", code="network-container-stopped"
            )
        directory = self._engine.catalog.path(other)
        files = {}
        for path in ("hosts", "hostname", "resolv.conf"):
            try:
                files[f"/etc/{path}"] = (directory / path).read_bytes()
            except FileNotFoundError:
                continue
        return Joined(f"/proc/{other.record.state.pid}/ns/net", other.record.config.hostname, files)

    def leave(self, entry: Entry) -> None:
        """Disconnect a container that ended, or did not start; harmless when it was not connected."""
        record = entry.record
        if any(self._is_named(settings) for settings in record.endpoints):
            self._engine.resolver.drop(record)
        self._detach_all(record)
        for settings in record.endpoints:
            settings.gateway = settings.address = settings.mac = settings.gateway6 = settings.address6 = ""
            settings.interface, settings.prefix, settings.prefix6 = "", 0, 0
        record.ports = {}

    def _detach_all(self, record: Container) -> None:
        for settings in record.endpoints:
            try:
                driver = self._networks.driver(settings.network)
            except NotFound:
                continue  # host and none, or removed since
            endpoint = driver.endpoints().get(record.id)
            if endpoint is not None:
                driver.detach(endpoint)
                self._networks.announce("disconnect", settings.network, record.id)

    # -- while it runs or not ------------------------------------------------------------------------------------------

    def connect(self, network_name: str, container: str, wanted: EndpointRequest) -> None:
        """Connect a container to a network, at once when it runs. Raises NotFound, Conflict, Denied, Invalid."""
        entry = self._engine.catalog.find(container)
        network = self._networks.find(network_name)
        with entry.lock:
            record = entry.record
            if record.host.network_mode.startswith("container:"):
                raise Conflict(_SHARED, code="network-conflict")
            check_request(network, wanted)
            if network.name in record.networks and record.state.running:
                raise Denied(
                    f"endpoint with name {record.name} already exists in network {network.name}",
                    code="endpoint-exists",
                    subject=record.name,
                )
            if "host" in record.networks:
                raise Denied(_SHARED, code="network-conflict")
            if network.name == "host":
                raise Denied(_HOST, code="network-conflict")
            if network.name == "none" or "none" in record.networks:
                raise Denied(_PRIVATE.format(name="none"), code="network-conflict")
            before = record.networks
            record.networks = {**before, network.name: wanted}
            if record.state.running:
                try:
                    self._connect_live(entry, network, wanted)
                except BaseException:
                    record.networks = before
                    raise
                self._settle_ways(entry)
            self._engine.catalog.save(entry)
        if record.state.running:
            self._networks.announce("connect", network.name, record.id)

    def _connect_live(self, entry: Entry, network: NetworkRecord, wanted: EndpointRequest) -> None:
        record = entry.record
        served = any(self._is_named(settings) for settings in record.endpoints)
        begin = network.user_defined and not served
        netns = self._enter(record, names=begin)
        try:
            interface = first_free_interface(record)
            request = attach_request(wanted, interface, default_route=False)
            driver = self._networks.driver(network.name)
            endpoint = driver.attach(netns.netns_fd, netns.route_fd, record.id, request)
            record.endpoints.append(self._settings(record, network, endpoint))
            try:
                self._engine.resolver.serve(record, netns if begin else None)
            except BaseException:
                record.endpoints.pop()
                driver.detach(endpoint, netns.route_fd)
                raise
        finally:
            _close(netns)
        directory = self._engine.catalog.path(entry)
        rewrite_hosts(directory, record, (), [a for a in (endpoint.ip, endpoint.ip6) if a])
        rewrite_resolv_conf(directory, record, resolver=served or begin)

    def disconnect(self, network_name: str, container: str, *, force: bool = False) -> None:
        """Disconnect a container from a network, at once when it runs. Raises NotFound, Denied."""
        network = self._networks.find(network_name)
        try:
            entry = self._engine.catalog.find(container)
        except NotFound:
            if force:
                raise NotFound(f"endpoint {container} not found", code="endpoint-not-found") from None
            raise
        with entry.lock:
            record = entry.record
            if network.name == "host" and "host" in record.networks:
                raise Denied(_HOST, code="network-conflict")
            if network.name not in record.networks:
                network_words = "network" if record.state.running else "the network"
                raise Denied(
                    f"container {record.id} is not connected to {network_words} {network.name}",
                    code="not-connected",
                    subject=record.id,
                )
            if record.state.running and network.name != "none":
                self._disconnect_live(entry, network)
            record.endpoints = [e for e in record.endpoints if e.network != network.name]
            record.networks = {name: asked for name, asked in record.networks.items() if name != network.name}
            if record.state.running:
                self._settle_ways(entry)
            self._engine.catalog.save(entry)
        if record.state.running:
            self._networks.announce("disconnect", network.name, record.id)

    def _disconnect_live(self, entry: Entry, network: NetworkRecord) -> None:
        record = entry.record
        driver = self._networks.driver(network.name)
        endpoint = driver.endpoints().get(record.id)
        gone = next(e for e in record.endpoints if e.network == network.name)
        record.endpoints = [e for e in record.endpoints if e.network != network.name]
        if endpoint is None:
            return
        netns = self._enter(record)
        try:
            driver.detach(endpoint, netns.route_fd)
        finally:
            _close(netns)
        if network.user_defined:
            self._engine.resolver.forget(record, gone)
        resolver = any(self._is_named(settings) for settings in record.endpoints)
        directory = self._engine.catalog.path(entry)
        rewrite_hosts(directory, record, [a for a in (endpoint.ip, endpoint.ip6) if a], ())
        rewrite_resolv_conf(directory, record, resolver=resolver)

    def _settle_ways(self, entry: Entry) -> None:
        """The default routes and the published ports of a running container go by the right endpoint."""
        record = entry.record
        way_out = self._publishing.way_out(record, [settings.network for settings in record.endpoints])
        found = next((e for e in record.endpoints if e.network == way_out), None)
        netns = self._enter(record)
        try:
            gateways = (found.gateway, found.gateway6) if found else ()
            set_default_routes(netns.route_fd, found.interface if found else "", [g for g in gateways if g])
        finally:
            _close(netns)
        self._publishing.settle(record)

    def change_ports(
        self, container: str, add: dict[str, list[PortBinding] | None], remove: Sequence[str]
    ) -> Container:
        """Publish and unpublish ports of a container, at once when it runs; connections that are open stay open.

        All or nothing; see `changed_bindings` for what `remove` takes. Raises NotFound, Conflict, Invalid.
        """
        entry = self._engine.catalog.find(container)
        with entry.lock:
            record = entry.record
            if "host" in record.networks or not record.networks or record.host.network_mode.startswith("container:"):
                raise Conflict(
                    f"container {record.name} has no network of its own to publish ports of", code="ports-and-network"
                )
            self._publishing.change(record, add, remove)
            self._engine.catalog.save(entry)
        self._engine.containers.announce(entry, "update")
        return record

    def renamed(self, entry: Entry) -> None:
        """The container has another name now, which others resolve."""
        record = entry.record
        if not record.state.running or not any(self._is_named(settings) for settings in record.endpoints):
            return
        for settings in record.endpoints:
            if self._is_named(settings):
                settings.dns_names = self._dns_names(record, settings.network)
        self._engine.resolver.serve(record, None)

    # -- at an engine's start ------------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Have names resolved again for the containers that run."""
        named = [
            entry
            for entry in self._engine.catalog
            if entry.record.state.running and any(self._is_named(s) for s in entry.record.endpoints)
        ]
        if not named:
            self._engine.resolver.end()
            return
        missing = self._engine.resolver.restore([entry.record for entry in named])
        for entry in named:
            if entry.record.id in missing:
                self.serve_again(entry.record)

    def serve_again(self, record: Container) -> None:
        """Give the resolver new sockets in a running container."""
        try:
            netns = self._enter(record, names=True)
        except (ProaError, OSError):
            return  # it has just ended
        try:
            self._engine.resolver.serve(record, netns)
        finally:
            _close(netns)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _enter(self, record: Container, *, names: bool = False) -> NetworkNamespace:
        """Sockets in the namespace of a running container."""
        try:
            fd = os.open(f"/proc/{record.state.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"container {record.id} has just ended", code="not-running", subject=record.id) from error
        try:
            return self._engine.make_netns(names=names, join_fd=fd)
        finally:
            os.close(fd)

    def _host_gateway(self, record: Container) -> str:
        """An address of the host on a network of the container's."""
        for settings in record.endpoints:
            driver = self._networks.driver_if_any(settings.network)
            if isinstance(driver, BridgeNetwork):
                gateways = driver.gateways()
                return gateways.get(4) or gateways.get(6, "")
        return ""

    def _is_named(self, settings: EndpointSettings) -> bool:
        return bool(settings.dns_names)

    def _dns_names(self, record: Container, network: str) -> list[str]:
        wanted = record.networks.get(network, _NO_WISH)
        names = [record.name, *(wanted.aliases or []), record.id[:12], record.config.hostname]
        return list(dict.fromkeys(name for name in names if name))

    def _settings(
        self, record: Container, network: NetworkRecord, endpoint: Endpoint | None = None
    ) -> EndpointSettings:
        identity = hashlib.sha256(f"{record.id}@{network.name}".encode()).hexdigest()
        settings = EndpointSettings(network=network.name, network_id=network.id, endpoint_id=identity)
        if endpoint is not None:
            settings.interface, settings.mac = endpoint.interface, endpoint.mac
            settings.gateway, settings.address, settings.prefix = endpoint.gateway, endpoint.ip, endpoint.prefix
            settings.gateway6, settings.address6, settings.prefix6 = endpoint.gateway6, endpoint.ip6, endpoint.prefix6
        if network.user_defined:
            settings.aliases = list(record.networks.get(network.name, _NO_WISH).aliases or [])
            settings.dns_names = self._dns_names(record, network.name)
        return settings


_NO_WISH = EndpointRequest()
_SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"
_HOST = "container cannot be disconnected from host network or connected to host network"
_PRIVATE = "container cannot be connected to multiple networks with one of the networks in private ({name}) mode"


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)
