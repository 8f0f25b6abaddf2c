"""Networks: where a container is connected, and what it finds in /etc/hosts, /etc/hostname and /etc/resolv.conf.

There are three: `bridge` (the default, with NAT and published ports), `host` and `none`; and `container:NAME` joins
another container's.
"""

from __future__ import annotations

import builtins
import hashlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from proa.engine.catalog import Entry
from proa.engine.clock import now
from proa.engine.types import Container, EndpointSettings, PortBinding
from proa.errors import Conflict, Invalid, NotFound
from proa.network import BridgeNetwork, Endpoint, PortRequest
from proa.network.files import host_resolv_conf, render_hostname, render_hosts, render_resolv_conf

if TYPE_CHECKING:
    from proa.engine.engine import Engine

BRIDGE = "bridge"
BUILT_IN = (BRIDGE, "host", "none")
OWN = (BRIDGE, "none")


class NetworkRecord(msgspec.Struct, kw_only=True):
    """One network as clients see it. `containers` maps container ids to their endpoints."""

    name: str
    id: str
    driver: str
    created: str
    scope: str = "local"
    internal: bool = False
    ipam: list[dict[str, str]] = []
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    containers: dict[str, EndpointSettings] = {}


class Joined:
    """What one start needs of the network: descriptors to hand over (closed by `close`) and generated files.

    namespace: None for one of its own, "host", or the path of one to join. netns_fd: one made beforehand, or -1;
    userns_fd: the user namespace it belongs to, made with it, or -1.
    """

    def __init__(
        self,
        namespace: str | None,
        hostname: str,
        files: dict[str, bytes],
        fds: tuple[int, ...] = (),
        sysctls: dict[str, str] | None = None,
    ) -> None:
        self.namespace = namespace
        self.hostname = hostname
        self.files = files
        self.sysctls = sysctls or {}
        self.netns_fd = fds[0] if fds else -1
        self.userns_fd = fds[3] if len(fds) > 3 else -1
        self._fds = [fd for fd in fds if fd >= 0]

    def close(self) -> None:
        """Close the descriptors."""
        while self._fds:
            os.close(self._fds.pop())


class Networks:
    """The networks of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._created = now()
        self._bridge = BridgeNetwork(engine.root, engine.run / "network", publish_address=engine.config.publish_address)

    def mode(self, record: Container) -> str:
        """`bridge`, `host`, `none` or `container:<name>`. Raises NotFound for a network that does not exist."""
        wanted = record.host.network_mode
        if record.config.network_disabled:
            return "none"
        if wanted in ("", "default", BRIDGE):
            return BRIDGE
        if wanted in ("host", "none") or wanted.startswith("container:"):
            return wanted
        for name in BUILT_IN:
            if self._id(name).startswith(wanted) and len(wanted) >= 12:
                return name
        raise NotFound(f"network {wanted} not found", code="network-not-found", subject=wanted)

    def check(self, record: Container) -> None:
        """Refuse at create what cannot be started. Raises NotFound, Conflict, Invalid."""
        mode = self.mode(record)
        if mode.startswith("container:"):
            self._engine.catalog.find(mode.removeprefix("container:"))
        requests = port_requests(record)
        if mode != BRIDGE and requests and mode.startswith("container:"):
            raise Conflict(
                "conflicting options: port publishing and the container type network mode", code="ports-and-network"
            )

    def join(self, entry: Entry) -> Joined:
        """Connect a container that is about to start, publish its ports. Raises Conflict for a port that is taken …"""
        record = entry.record
        mode = self.mode(record)
        record.endpoints, record.ports = [], {}
        if mode == "host":
            return Joined("host", record.config.hostname or socket.gethostname(), self._files(record, "", own=False))
        if mode.startswith("container:"):
            return self._join_other(mode.removeprefix("container:"))
        settings = EndpointSettings(network=mode, network_id=self._id(mode), endpoint_id=endpoint_id(record.id, mode))
        if mode == "none":
            record.endpoints = [settings]
            return Joined(None, record.config.hostname, self._files(record, ""))
        netns = self._engine.make_netns(record.id_maps)
        try:
            endpoint = self._bridge.attach(netns.netns_fd, netns.route_fd, record.id)
            try:
                self._publish(record, endpoint)
            except BaseException:
                self._bridge.detach(endpoint)
                raise
        except BaseException:
            _close(netns)
            raise
        settings.gateway, settings.address = endpoint.gateway, endpoint.ip
        settings.prefix, settings.mac = endpoint.prefix, endpoint.mac
        record.endpoints = [settings]
        files = self._files(record, endpoint.ip, endpoint.gateway)
        return Joined(None, record.config.hostname, files, tuple(netns), endpoint.sysctls)

    def _publish(self, record: Container, endpoint: Endpoint) -> None:
        requests = port_requests(record)
        if not requests:
            return
        for port in self._bridge.publish(endpoint, requests, name=record.name):
            key = f"{port.container_port}/{port.protocol}"
            record.ports.setdefault(key, []).append(PortBinding(host_ip=port.host_ip, host_port=str(port.host_port)))

    def _join_other(self, name: str) -> Joined:
        other = self._engine.catalog.find(name)
        if not other.record.state.running:
            raise Conflict(
                f"cannot join network of a non running container: {other.record.id}", code="network-container-stopped"
            )
        directory = self._engine.catalog.path(other)
        files = {}
        for path in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
            try:
                files[path] = (directory / Path(path).name).read_bytes()
            except FileNotFoundError:
                continue
        return Joined(f"/proc/{other.record.state.pid}/ns/net", other.record.config.hostname, files)

    def leave(self, entry: Entry) -> None:
        """Disconnect a container that ended, or did not start; harmless when it was not connected."""
        endpoint = self._bridge.endpoints().get(entry.record.id)
        if endpoint is not None:
            self._bridge.detach(endpoint)
        for settings in entry.record.endpoints:
            settings.gateway = settings.address = settings.mac = ""
            settings.prefix = 0
        entry.record.ports = {}

    def _files(self, record: Container, ip: str, gateway: str = "", *, own: bool = True) -> dict[str, bytes]:
        host, config = record.host, record.config
        hostname = config.hostname or socket.gethostname()
        extra = []
        for item in host.extra_hosts or []:
            name, _, address = item.partition(":" if ":" in item else "=")
            extra.append((name, address))
        files = {
            "/etc/hosts": render_hosts(
                hostname, ip, domain=config.domainname, extra=extra, host_gateway=gateway or "127.0.0.1"
            ),
            "/etc/hostname": render_hostname(hostname),
            "/etc/resolv.conf": render_resolv_conf(
                host_resolv_conf(),
                nameservers=host.dns or [],
                search=host.dns_search or [],
                options=host.dns_options or [],
                own_namespace=own,
            ),
        }
        if not own:
            files["/etc/hosts"] = Path("/etc/hosts").read_bytes() if not extra else files["/etc/hosts"]
        return files

    def _id(self, name: str) -> str:
        return hashlib.sha256(f"{self._engine.id}/{name}".encode()).hexdigest()

    def list(self) -> builtins.list[NetworkRecord]:
        """All networks."""
        return [self.get(name) for name in BUILT_IN]

    def get(self, name_or_id: str) -> NetworkRecord:
        """One network. Raises NotFound with Docker's words."""
        for name in BUILT_IN:
            if name_or_id == name or (len(name_or_id) >= 4 and self._id(name).startswith(name_or_id)):
                record = NetworkRecord(
                    name=name, id=self._id(name), driver="null" if name == "none" else name, created=self._created
                )
                if name == BRIDGE and (subnet := self._bridge.subnet) is not None:
                    record.ipam = [{"Subnet": str(subnet), "Gateway": str(subnet.network_address + 1)}]
                for entry in self._engine.catalog:
                    for settings in entry.record.endpoints:
                        if settings.network == name and entry.record.state.running:
                            record.containers[entry.record.id] = settings
                return record
        raise NotFound(f"network {name_or_id} not found", code="network-not-found", subject=name_or_id)

    def warnings(self) -> builtins.list[str]:
        """What keeps the bridge from working as asked."""
        return self._bridge.warnings()

    def reconcile(self) -> None:
        """Make the kernel agree with the containers that run."""
        self._bridge.reconcile([e.record.id for e in self._engine.catalog if e.record.state.running])

    def close(self) -> None:
        """Let go; when no container is connected, take the bridge and its rules down."""
        if self._bridge.endpoints() or any(e.record.state.running for e in self._engine.catalog):
            self._bridge.close()
        else:
            self._bridge.destroy()


def endpoint_id(container: str, network: str) -> str:
    """A stable id of a container's place on a network."""
    return hashlib.sha256(f"{container}@{network}".encode()).hexdigest()


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def port_requests(record: Container) -> builtins.list[PortRequest]:
    """What to publish: `-p`, and with `-P` every exposed port. Raises Invalid."""
    out = []
    for spec, bindings in (record.host.port_bindings or {}).items():
        port, protocol = _container_port(spec)
        for binding in bindings or [PortBinding()]:
            first, _, last = binding.host_port.partition("-")
            out.append(
                PortRequest(
                    container_port=port,
                    protocol=protocol,
                    host_ip=binding.host_ip,
                    host_port=_number(first, binding.host_port),
                    host_port_end=_number(last, binding.host_port),
                )
            )
    if record.host.publish_all_ports:
        bound = {(r.container_port, r.protocol) for r in out}
        for spec in record.config.exposed_ports or {}:
            port, protocol = _container_port(spec)
            if (port, protocol) not in bound:
                out.append(PortRequest(container_port=port, protocol=protocol))
    for request in out:
        request.check()
    return out


def _container_port(spec: str) -> tuple[int, str]:
    number, _, protocol = spec.partition("/")
    return _number(number, spec), (protocol or "tcp").lower()


def _number(text: str, whole: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise Invalid(f"invalid port specification: {whole!r}", code="port-range", subject=whole)
    return int(text)
