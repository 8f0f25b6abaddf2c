"""One bridge network: a Linux bridge with NAT, container endpoints on it, and published host ports.

    container eth0 --veth-- pv<root><ip> on bridge proa-<key> -- host routing, table proa-<root> -- the outside world

Every name comes from the engine's root directory, every subnet is checked against the host and claimed by putting its
address on the bridge, so any number of engines live side by side. Every call first makes true what it needs: a new
engine adopts what an old one left, `reconcile` repairs what others tore down.

    network = BridgeNetwork(Fabric(root, run_dir), NetworkSpec(key="bridge", name="bridge"))
    endpoint = network.attach(netns_fd, rtnl_fd, "4f2a...")        # the pair of descriptors comes from the nursery
    network.publish(endpoint, [PortRequest(container_port=80, host_port=8080)])
    network.detach(endpoint)
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Sequence
from ipaddress import IPv4Network, ip_address, ip_network

import msgspec

from proa.errors import Conflict, Unsupported
from proa.network.addresses import DEFAULT_POOLS, AddressPool, AnyNetwork
from proa.network.endpoint import AttachRequest, Endpoint, PortRequest, PublishedPort
from proa.network.fabric import Fabric, root_number
from proa.network.firewall import Target, Zone
from proa.network.host import SubnetWish, host_mtu, host_warnings, settle_bridge, switch_forwarding_on
from proa.network.netlink import NetlinkFailure
from proa.network.records import EndpointRecords, read_subnets, write_subnets
from proa.network.refusals import explained
from proa.network.spec import NetworkSpec, SubnetSpec
from proa.network.wiring import interior_of, place_on_bridge

__all__ = ["BridgeNetwork"]

_ANY = {4: "0.0.0.0", 6: "::"}  # noqa: S104


class BridgeNetwork:
    """The bridge network of `spec` on an engine's fabric; pools: where subnets that nobody asked for come from.

    Thread-safe (the fabric's lock), every method idempotent. Raises Denied without CAP_NET_ADMIN, Unsupported when the
    kernel lacks bridges, veth or nf_tables, Exhausted, Conflict, Invalid.
    """

    def __init__(self, fabric: Fabric, spec: NetworkSpec, *, pools: Sequence[IPv4Network] = DEFAULT_POOLS) -> None:
        self.name = spec.name
        self.spec = spec
        self.zone: Zone | None = None
        self.warnings: list[str] = []
        self._fabric = fabric
        self._ranges = tuple(pools)
        self._seed = root_number(fabric.root, spec.key)
        self.bridge = spec.bridge or f"proa-{self._seed:08x}"
        self._records = EndpointRecords(fabric.run_dir, spec.key)
        self._endpoints = self._records.load()
        self._pools: dict[int, AddressPool] = {}
        self._bridge_index = 0
        self.mtu = spec.mtu
        with fabric.lock:
            fabric.members[spec.key] = self

    # -- for the engine ------------------------------------------------------------------------------------------------

    def subnets(self) -> tuple[AnyNetwork, ...]:
        """The subnets in use, chosen earlier, or asked for; IPv4 first."""
        if self._pools:
            return tuple(pool.subnet for pool in self._pools.values())
        return tuple(wish.subnet for wish in self._wishes() if wish.subnet is not None)

    def endpoints(self) -> dict[str, Endpoint]:
        """Endpoints by container id, published ports included."""
        with self._fabric.lock:
            return dict(self._endpoints)

    def used_addresses(self, version: int) -> int:
        """How many addresses of that family containers have."""
        with self._fabric.lock:
            return self._pools[version].used if version in self._pools else 0

    def ensure(self, *, new: bool = False) -> None:
        """Bridge, table and switches are there and right; quick when this object has seen to it before.

        new: the network is being made: a subnet of the user's that clashes with the host's is refused.
        """
        with self._fabric.lock, explained(self.name):
            self._ensure(new=new)

    def attach(self, netns_fd: int, rtnl_fd: int, container_id: str, request: AttachRequest | None = None) -> Endpoint:
        """Give a network namespace an interface on this network, up, with addresses and routes.

        netns_fd: the namespace; rtnl_fd: a NETLINK_ROUTE socket that was made in it; both stay the caller's.
        A container that is attached already is attached anew (its old namespace died).
        """
        wanted = request or AttachRequest()
        with self._fabric.lock, explained(self.name):
            pools = self._ensure()
            old = self._endpoints.get(container_id)
            if old is not None:
                self._detach(old)
            taken = []
            try:
                for version, pool in pools.items():
                    taken.append(pool.take(wanted.ip if version == 4 else wanted.ip6))
                interior = interior_of(pools, taken, wanted, internal=self.spec.internal)
                endpoint = place_on_bridge(self, container_id, netns_fd, rtnl_fd, wanted, interior)
                self._records.write(endpoint)
            except BaseException:
                for address in taken:
                    pools[address.version].release(address)
                raise
            self._endpoints[container_id] = endpoint
            return endpoint

    def detach(self, endpoint: Endpoint, rtnl_fd: int = -1) -> None:
        """Take a container off the network: its ports, its link, its record; its address is free again.

        rtnl_fd: says that its namespace lives on (a NETLINK_ROUTE socket made there); otherwise the link itself is
        deleted up to a second later, unless the namespace dies first.
        """
        with self._fabric.lock, explained(self.name):
            current = self._endpoints.get(endpoint.container_id)
            if current is not None:
                self._detach(current)
                if rtnl_fd >= 0:
                    self._fabric.links.delete_number(current.host_number, current.host_interface)

    def publish(self, endpoint: Endpoint, ports: Sequence[PortRequest], *, name: str = "") -> list[PublishedPort]:
        """Publish container ports on the host, all or none; returns what was bound, in the order asked.

        A request without an address is published at the network's default, of IPv6 as well where the container has it.
        name: the container's, for the error text. Raises Conflict (code `port-allocated`) with Docker's words.
        """
        with self._fabric.lock, explained(self.name):
            current = self._endpoints.get(endpoint.container_id)
            if current is None:
                raise Conflict(f"container {endpoint.container_id} is not attached to {self.name}", code="not-attached")
            bound: list[PublishedPort] = []
            fresh: list[PublishedPort] = []
            try:
                for request in ports:
                    addresses = self._host_addresses(current, request)
                    found = _already(current, request, addresses)
                    if not found:
                        owner = f"{name or endpoint.container_id[:12]} ({endpoint.container_id})"
                        found = self._fabric.holders.reserve(request, addresses, owner, current.ip or current.ip6)
                        fresh += found
                    bound += found
                if fresh:
                    self._redirect(current, fresh)
            except BaseException:
                self._fabric.holders.release(fresh)
                raise
            return bound

    def unpublish(self, endpoint: Endpoint, ports: Collection[PublishedPort] | None = None) -> None:
        """Stop publishing some ports, or all; connections that are open stay open."""
        with self._fabric.lock, explained(self.name):
            current = self._endpoints.get(endpoint.container_id)
            if current is None:
                return
            gone = [port for port in current.ports if ports is None or port in ports]
            if gone:
                self._unpublish(current, gone)
                self._remember(current, tuple(port for port in current.ports if port not in gone))

    def reconcile(self, live: Collection[str]) -> None:
        """Drop the endpoints of containers that do not live, and mend the rest if anything of it was up.

        Level-triggered: call it at engine start, and whenever something may have torn the rules down.
        """
        with self._fabric.lock, explained(self.name):
            for container_id, endpoint in list(self._endpoints.items()):
                if container_id not in live:
                    self._detach(endpoint)
            self.zone = None
            if self._endpoints or self._fabric.owns(self.bridge):
                self._ensure()

    def destroy(self) -> None:
        """Remove the bridge and its part of the table; Conflict while a container is attached."""
        with self._fabric.lock, explained(self.name):
            if self._endpoints:
                raise Conflict(
                    f"error while removing network: network {self.name} has active endpoints",
                    code="network-in-use",
                    subject=self.name,
                    hint="stop its containers first",
                )
            self.zone = None
            fabric = self._fabric
            if any(member.zone is not None for member in fabric.members.values()):
                fabric.install()
                fabric.delete_bridge(self.bridge)
            else:
                fabric.dissolve()
            self._records.remove_all()

    # -- for the fabric, with the lock held ----------------------------------------------------------------------------

    def targets(self) -> Iterator[Target]:
        """Published ports with the container's address of the same family."""
        for endpoint in self._endpoints.values():
            for port in endpoint.ports:
                yield _target(endpoint, port)

    def owned_links(self) -> dict[str, Endpoint]:
        """Endpoints by the name of their link on the host."""
        return {endpoint.host_interface: endpoint for endpoint in self._endpoints.values()}

    def mend(self) -> None:
        """Make bridge, addresses, containers' links and held ports true."""
        fabric = self._fabric
        links = fabric.links
        self.mtu = self.spec.mtu or host_mtu(links)
        self._settle(new=False)
        self.warnings += host_warnings(fabric.firewall, self.bridge)
        present = {link.name: link for link in links.all()}
        for name, endpoint in self.owned_links().items():
            link = present.get(name)
            if link is None:
                self.warnings.append(
                    f"the network link of container {endpoint.container_id[:12]} is gone: restart the container"
                )
            elif link.master != self._bridge_index:
                links.enslave(link, self._bridge_index, isolated=not self.spec.icc)
        for endpoint in self._endpoints.values():
            for port in endpoint.ports:
                if not fabric.holders.adopt(port):
                    self.warnings.append(
                        f"another program took {port.host_ip}:{port.host_port}/{port.protocol}, published by container "
                        f"{endpoint.container_id[:12]}: connections still go to the container"
                    )

    # -- inside, with the lock held ------------------------------------------------------------------------------------

    def _wishes(self) -> list[SubnetWish]:
        asked: dict[int, SubnetSpec] = {ip_network(given.subnet).version: given for given in self.spec.subnets}
        stored: dict[int, AnyNetwork] = {
            subnet.version: subnet for subnet in read_subnets(self._fabric.root, self.spec.key)
        }
        wishes = []
        for version in ((4,) if self.spec.ipv4 else ()) + ((6,) if self.spec.ipv6 else ()):
            given = asked.get(version)
            if given is not None:
                wishes.append(SubnetWish(version, ip_network(given.subnet), given.gateway, True))
            else:
                wishes.append(SubnetWish(version, stored.get(version)))
        return wishes

    def _settle(self, *, new: bool) -> None:
        fabric = self._fabric
        settled = settle_bridge(
            fabric.links,
            self.bridge,
            self._wishes(),
            self._ranges,
            seed=self._seed,
            root_number=fabric.number,
            keep=bool(self._endpoints),
            new=new,
            mtu=self.mtu,
            alias=fabric.table,
        )
        self.warnings = list(settled.warnings)
        subnets = [gateway.network for gateway in settled.gateways]
        if len(self.spec.subnets) < len(subnets) and subnets != list(read_subnets(fabric.root, self.spec.key)):
            write_subnets(fabric.root, self.spec.key, subnets)
        self._bridge_index = settled.link.number
        if [pool.subnet for pool in self._pools.values()] != subnets:
            self._pools = {
                gateway.version: self._pool_of(gateway.network, str(gateway.ip)) for gateway in settled.gateways
            }
        for endpoint in self._endpoints.values():
            for text in (endpoint.ip, endpoint.ip6):
                if text and (address := ip_address(text)).version in self._pools:
                    self._pools[address.version].reserve(address)
        spec = self.spec
        self.zone = Zone(self.bridge, tuple(subnets), icc=spec.icc, internal=spec.internal, masquerade=spec.masquerade)

    def _pool_of(self, subnet: AnyNetwork, gateway: str) -> AddressPool:
        given = next((given for given in self.spec.subnets if ip_network(given.subnet) == subnet), None)
        if given is None:
            return AddressPool(subnet, self.name)
        return AddressPool(
            subnet,
            self.name,
            gateway=ip_address(gateway),
            within=ip_network(given.ip_range) if given.ip_range else None,
            reserved=[ip_address(address) for address in given.reserved.values()],
        )

    def _ensure(self, *, new: bool = False) -> dict[int, AddressPool]:
        if self.zone is None or not self._pools:
            fabric = self._fabric
            if new:
                self.mtu = self.spec.mtu or host_mtu(fabric.links)
                self._settle(new=True)
            self.mend()
            fabric.mend_links()
            fabric.install()
            switch_forwarding_on(fabric.firewall, ipv6=6 in self._pools)
        return self._pools

    def remake(self) -> None:
        """The bridge was deleted under us: make it again."""
        self.zone = None
        self._ensure()

    def gateways(self) -> dict[int, str]:
        """The gateways' addresses by IP version."""
        return {version: str(pool.gateway) for version, pool in self._pools.items()}

    @property
    def bridge_index(self) -> int:
        """The bridge's number."""
        return self._bridge_index

    @property
    def fabric(self) -> Fabric:
        """The ground it stands on."""
        return self._fabric

    def _detach(self, endpoint: Endpoint) -> None:
        if endpoint.ports:
            self._unpublish(endpoint, endpoint.ports)
            self._fabric.part(ip_address(text) for text in (endpoint.ip, endpoint.ip6) if text)
        del self._endpoints[endpoint.container_id]
        self._records.remove(endpoint.container_id)
        self._fabric.sweeper.delete_link(endpoint.host_number, endpoint.host_interface)
        for text in (endpoint.ip, endpoint.ip6):
            if text and (address := ip_address(text)).version in self._pools:
                self._pools[address.version].release(address)

    def _host_addresses(self, endpoint: Endpoint, request: PortRequest) -> list[str]:
        asked = request.host_ip or self.spec.publish_address
        if not request.host_ip and asked == _ANY[4]:
            return [_ANY[version] for version, ip in ((4, endpoint.ip), (6, endpoint.ip6)) if ip]
        version = 6 if ":" in asked else 4
        relay = self._fabric.relay
        only_relayed = relay is not None and (relay.everything or asked == "::1")
        if not only_relayed and not (endpoint.ip6 if version == 6 else endpoint.ip):
            raise Unsupported(
                f"cannot publish on {asked}: network {self.name} has no IPv{version}",
                code="ipv6-publish" if version == 6 else "ipv4-publish",
                subject=asked,
                hint=f"publish on an IPv{10 - version} address, or connect the container to a network with both",
            )
        return [asked]

    def _redirect(self, endpoint: Endpoint, ports: list[PublishedPort]) -> None:
        self._ensure()
        fabric = self._fabric
        self._remember(endpoint, endpoint.ports + tuple(ports))
        try:
            try:
                fabric.publish([_target(endpoint, port) for port in ports])
            except NetlinkFailure as error:
                if error.errno not in {errno.ENOENT, errno.EEXIST}:
                    raise
                # Someone flushed the table, or a crash left an element: write it as recorded.
                fabric.install()
        except BaseException:
            self._remember(endpoint, endpoint.ports)
            raise
        udp_ports = {port.host_port for port in ports if port.protocol == "udp"}
        if udp_ports:
            fabric.sweeper.forget_udp(udp_ports)

    def _unpublish(self, endpoint: Endpoint, ports: Sequence[PublishedPort]) -> None:
        self._fabric.withdraw([_target(endpoint, port) for port in ports])

    def _remember(self, endpoint: Endpoint, ports: tuple[PublishedPort, ...]) -> None:
        changed = msgspec.structs.replace(endpoint, ports=ports)
        self._records.write(changed)
        self._endpoints[endpoint.container_id] = changed


def _target(endpoint: Endpoint, port: PublishedPort) -> Target:
    """Where a port leads: to the container's address of its family, or by a relay to the one that it has."""
    wanted, other = (endpoint.ip6, endpoint.ip) if ":" in port.host_ip else (endpoint.ip, endpoint.ip6)
    return ip_address(wanted or other), port


def _already(endpoint: Endpoint, request: PortRequest, addresses: Sequence[str]) -> list[PublishedPort]:
    """The ports that this very request has published already."""
    if request.host_port_end > request.host_port:
        return []
    found = [
        port
        for port in endpoint.ports
        if (port.container_port, port.protocol, port.host_port)
        == (request.container_port, request.protocol, request.host_port)
        and port.host_ip in addresses
    ]
    return found if len(found) == len(addresses) else []
