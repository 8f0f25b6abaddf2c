"""macvlan and ipvlan networks: containers on a LAN of the host's, each with an interface of its own on a parent link.

    container eth0 --macvlan or ipvlan-- parent (eth0, or eth0.10 for a VLAN) -- the LAN

Packets never meet the host's routing, so nothing is translated and no port is published; the host itself is out of
reach over its parent link, which is how these links work.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from ipaddress import ip_address, ip_network

from proa.errors import Conflict, Internal, Invalid, NotFound, Unsupported
from proa.network.addresses import AddressPool, AnyNetwork
from proa.network.endpoint import AttachRequest, Endpoint, mac_of, parse_mac
from proa.network.fabric import Fabric
from proa.network.links import Links
from proa.network.netlink import NETLINK_ROUTE, Channel, NetlinkFailure
from proa.network.records import EndpointRecords
from proa.network.refusals import explained
from proa.network.spec import NetworkSpec
from proa.network.wiring import endpoint_of, interior_of

__all__ = ["SlaveNetwork"]

# linux/if_link.h
_MODES = {
    "macvlan": {"bridge": 4, "private": 1, "vepa": 2, "passthru": 8},
    "ipvlan": {"l2": 0, "l3": 1, "l3s": 2},
}


class SlaveNetwork:
    """The macvlan or ipvlan network of `spec`; options: `parent`, `macvlan_mode`, `ipvlan_mode`.

    Methods as BridgeNetwork's. Thread-safe. Raises Unsupported when the kernel lacks the kind of link.
    """

    def __init__(self, fabric: Fabric, spec: NetworkSpec, kind: str, options: Mapping[str, str]) -> None:
        self.name = spec.name
        self.spec = spec
        self.warnings: list[str] = []
        self._fabric = fabric
        self._kind = kind
        self._parent = options.get("parent", "")
        self._mode = options.get(f"{kind}_mode") or ("bridge" if kind == "macvlan" else "l2")
        self._records = EndpointRecords(fabric.run_dir, spec.key)
        self._endpoints = self._records.load()
        self._pools: dict[int, AddressPool] = {
            subnet.version: _pool(subnet, spec, number)
            for number, subnet in enumerate(ip_network(given.subnet) for given in spec.subnets)
        }
        for endpoint in self._endpoints.values():
            self._reserve(endpoint)

    def subnets(self) -> tuple[AnyNetwork, ...]:
        """The subnets, IPv4 first."""
        return tuple(pool.subnet for pool in self._pools.values())

    def gateways(self) -> dict[int, str]:
        """The LAN's gateways by IP version."""
        return {version: str(pool.gateway) for version, pool in self._pools.items()}

    def endpoints(self) -> dict[str, Endpoint]:
        """Endpoints by container id."""
        with self._fabric.lock:
            return dict(self._endpoints)

    def used_addresses(self, version: int) -> int:
        """How many addresses of that family containers have."""
        return self._pools[version].used if version in self._pools else 0

    def ensure(self, *, new: bool = False) -> None:
        """The parent link is there; when the network is `new`, the kernel is tried.

        Raises Invalid for options that make no sense, NotFound, Unsupported.
        """
        with self._fabric.lock, explained(self.name):
            if self._mode not in _MODES[self._kind]:
                wanted = ", ".join(_MODES[self._kind])
                raise Invalid(f"unknown {self._kind}_mode {self._mode!r}: want {wanted}", code="option-value")
            if not self._parent:
                raise Invalid(
                    f"a {self._kind} network needs the host's link it is on",
                    code="parent-missing",
                    subject=self.name,
                    hint="give it with -o parent=eth0",
                )
            if not self._pools:
                raise Invalid(
                    f"a {self._kind} network needs the LAN's subnet",
                    code="subnet-missing",
                    hint="give it with --subnet",
                )
            parent = self._parent_index()
            if new:
                self._try(parent)

    def _try(self, parent: int) -> None:
        """Make a link and delete it."""
        name = f"{self._fabric.port_prefixes[False]}try"
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._make(parent, name, "", here)
        finally:
            os.close(here)
        self._fabric.links.delete(name)

    def attach(self, netns_fd: int, rtnl_fd: int, container_id: str, request: AttachRequest | None = None) -> Endpoint:
        """Give a network namespace an interface on the LAN; see BridgeNetwork.attach."""
        wanted = request or AttachRequest()
        with self._fabric.lock, explained(self.name):
            parent = self._parent_index()
            old = self._endpoints.get(container_id)
            if old is not None:
                self._forget(old)
            taken = []
            try:
                for version, pool in self._pools.items():
                    taken.append(pool.take(wanted.ip if version == 4 else wanted.ip6))
                interior = interior_of(self._pools, taken, wanted, internal=self.spec.internal)
                # An ipvlan link has its parent's address; a macvlan link has one of its own.
                mac = "" if self._kind == "ipvlan" else parse_mac(wanted.mac) if wanted.mac else mac_of(taken[0].packed)
                self._make(parent, wanted.interface, mac, netns_fd)
                with Channel(NETLINK_ROUTE, fd=rtnl_fd) as channel:
                    inside = Links(channel)
                    made = inside.find(wanted.interface)
                    if made is None:
                        raise Internal(f"{wanted.interface} is not in the namespace of its socket", code="rtnl-fd")
                    inside.configure(made.number, wanted.interface, interior)
                gateways = {} if self.spec.internal else self.gateways()
                endpoint = endpoint_of(self.name, gateways, container_id, wanted, interior, mac=made.mac, mtu=made.mtu)
                self._records.write(endpoint)
            except BaseException:
                for address in taken:
                    self._pools[address.version].release(address)
                raise
            self._endpoints[container_id] = endpoint
            return endpoint

    def detach(self, endpoint: Endpoint, rtnl_fd: int = -1) -> None:
        """Take a container off: its record and address; with `rtnl_fd` its link, which else dies with its namespace."""
        with self._fabric.lock, explained(self.name):
            current = self._endpoints.get(endpoint.container_id)
            if current is None:
                return
            self._forget(current)
            if rtnl_fd >= 0:
                with Channel(NETLINK_ROUTE, fd=rtnl_fd) as channel:
                    Links(channel).delete(current.interface)

    def reconcile(self, live: Collection[str]) -> None:
        """Drop the endpoints of containers that do not live."""
        with self._fabric.lock:
            for container_id, endpoint in list(self._endpoints.items()):
                if container_id not in live:
                    self._forget(endpoint)

    def destroy(self) -> None:
        """Forget the network; Conflict while a container is attached."""
        with self._fabric.lock:
            if self._endpoints:
                raise Conflict(f"network {self.name} has active endpoints", code="network-in-use", subject=self.name)
            self._records.remove_all()

    def _parent_index(self) -> int:
        links = self._fabric.links
        link = links.find(self._parent)
        if link is not None:
            return link.number
        base, dot, tag = self._parent.rpartition(".")
        below = links.find(base) if dot and tag.isascii() and tag.isdigit() and 0 < int(tag) < 4095 else None
        if below is None:
            raise NotFound(
                f"network {self.name}: the host has no link {self._parent}", code="parent-missing", subject=self._parent
            )
        links.create_vlan(below.number, self._parent, int(tag))
        made = links.find(self._parent)
        assert made is not None
        return made.number

    def _make(self, parent: int, interface: str, mac: str, netns_fd: int) -> None:
        mode = _MODES[self._kind][self._mode]
        try:
            self._fabric.links.create_slave(self._kind, parent, interface, mac, self.spec.mtu, netns_fd, mode)
        except NetlinkFailure as error:
            if "Unknown device type" in error.explanation:
                raise Unsupported(
                    f"network {self.name}: this host's kernel has no {self._kind} links",
                    code=f"{self._kind}-missing",
                    subject=self.name,
                    hint="use a kernel that has them, or a bridge network",
                ) from error
            raise

    def _reserve(self, endpoint: Endpoint) -> None:
        for text in (endpoint.ip, endpoint.ip6):
            if text and (address := ip_address(text)).version in self._pools:
                self._pools[address.version].reserve(address)

    def _forget(self, endpoint: Endpoint) -> None:
        del self._endpoints[endpoint.container_id]
        self._records.remove(endpoint.container_id)
        for text in (endpoint.ip, endpoint.ip6):
            if text and (address := ip_address(text)).version in self._pools:
                self._pools[address.version].release(address)


def _pool(subnet: AnyNetwork, spec: NetworkSpec, number: int) -> AddressPool:
    given = spec.subnets[number]
    return AddressPool(
        subnet,
        spec.name,
        gateway=ip_address(given.gateway) if given.gateway else None,
        within=ip_network(given.ip_range) if given.ip_range else None,
        reserved=[ip_address(address) for address in given.reserved.values()],
    )
