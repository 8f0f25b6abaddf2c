"""The bridge network of one engine: a Linux bridge with NAT, container endpoints on it, and published host ports.

    container eth0 --veth-- pv<root><ip> on bridge proa-<root> -- host routing, table proa-<root> -- the outside world

Every name comes from the engine's root directory, every subnet is checked against the host and claimed by putting its
address on the bridge, so any number of engines live side by side. All state is in the kernel and in small files, and
every call first makes true what it needs: a new engine adopts what an old one left, `reconcile` repairs what others
tore down.

    network = BridgeNetwork(root, run_dir)
    endpoint = network.attach(netns_fd, rtnl_fd, "4f2a...")        # the pair of descriptors comes from the nursery
    network.publish(endpoint, [PortRequest(container_port=80, host_port=8080)])
    network.detach(endpoint)
"""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from proa.errors import Conflict, Internal, ProaError
from proa.network import sysctls
from proa.network.addresses import DEFAULT_POOLS, AddressPool
from proa.network.endpoint import Endpoint, PortRequest, PublishedPort, mac_of
from proa.network.firewall import Firewall
from proa.network.host import host_mtu, host_warnings, settle_bridge, switch_forwarding_off, switch_forwarding_on
from proa.network.links import Links, VethPair
from proa.network.netlink import NETLINK_ROUTE, Channel, NetlinkFailure
from proa.network.ports import PortHolders
from proa.network.records import EndpointRecords, read_subnet, write_subnet
from proa.network.refusals import explained
from proa.network.sweeper import Sweeper
from proa.network.watch import RuleWatch

__all__ = ["BridgeNetwork"]

_INTERFACE = "eth0"


class BridgeNetwork:
    """The bridge network `name` of the engine at `root`, in the network namespace of the calling threads.

    run_dir: where endpoint records go; pools: where subnets come from; icc: whether containers reach one another;
    publish_address: the host address of ports published without one; mtu 0: that of the host's default route.
    Thread-safe (one lock), every method idempotent. Raises Denied without CAP_NET_ADMIN, Unsupported when the kernel
    lacks bridges, veth or nf_tables, Exhausted, Conflict, Invalid.
    """

    def __init__(
        self,
        root: Path,
        run_dir: Path,
        *,
        name: str = "bridge",
        pools: Sequence[IPv4Network] = DEFAULT_POOLS,
        icc: bool = True,
        publish_address: str = "0.0.0.0",  # noqa: S104 -- Docker's default; the engine's configuration narrows it
        mtu: int = 0,
    ) -> None:
        self.name = name
        self._root = root
        self._ranges = tuple(pools)
        self._icc = icc
        self._publish_address = publish_address
        self._wanted_mtu = mtu
        self._seed = _root_number(root, name)
        self.bridge = f"proa-{self._seed:08x}"
        self._port_prefix = f"pv{self._seed & 0xFFFF:04x}"
        self._lock = threading.RLock()
        self._records = EndpointRecords(run_dir, name)
        self._endpoints = self._records.load()
        self._holders = PortHolders()
        self._sweeper = Sweeper()
        self._watch: RuleWatch | None = None
        self._channel: Channel | None = None
        self._firewall: Firewall | None = None
        self._ready = False
        self._warnings: list[str] = []
        self._pool: AddressPool | None = None
        self._bridge_index = 0
        self._mtu = 0

    # -- for the engine ------------------------------------------------------------------------------------------------

    @property
    def subnet(self) -> IPv4Network | None:
        """The subnet in use or chosen earlier; None before the first `ensure`."""
        return self._pool.subnet if self._pool is not None else read_subnet(self._root, self.name)

    def endpoints(self) -> dict[str, Endpoint]:
        """Endpoints by container id, published ports included."""
        with self._lock:
            return dict(self._endpoints)

    def warnings(self) -> list[str]:
        """What about this host keeps the network from working as asked, in sentences; filled by ensure and
        reconcile."""
        with self._lock:
            return list(self._warnings)

    def ensure(self) -> None:
        """Bridge, table and switches are there and right; quick when this object has seen to it before."""
        with self._lock, explained(self.name):
            self._ensure()

    def attach(self, netns_fd: int, rtnl_fd: int, container_id: str, *, ip: str = "") -> Endpoint:
        """Give a network namespace an interface `eth0` on this network, up, with address and default route.

        netns_fd: the namespace; rtnl_fd: a NETLINK_ROUTE socket that was made in it; both stay the caller's.
        A container that is attached already is attached anew (its old namespace died).
        """
        with self._lock, explained(self.name):
            pool = self._ensure()
            old = self._endpoints.get(container_id)
            if old is not None:
                self._detach(old)
            address = pool.take(ip)
            try:
                endpoint = self._wire(pool, netns_fd, rtnl_fd, container_id, address)
                self._records.write(endpoint)
            except BaseException:
                self._open()[0].delete(self._host_interface(address))
                pool.release(address)
                raise
            self._endpoints[container_id] = endpoint
            return endpoint

    def detach(self, endpoint: Endpoint) -> None:
        """Take a container that ended off the network: its ports, its link, its record; its address is free again.

        The link itself is deleted up to a second later, unless its namespace dies first.
        """
        with self._lock, explained(self.name):
            current = self._endpoints.get(endpoint.container_id)
            if current is not None:
                self._detach(current)

    def publish(self, endpoint: Endpoint, ports: Sequence[PortRequest], *, name: str = "") -> list[PublishedPort]:
        """Publish container ports on the host, all or none; returns what was bound, in the order asked.

        name: the container's, for the error text. Raises Conflict (code `port-allocated`) with Docker's words.
        """
        with self._lock, explained(self.name):
            current = self._endpoints.get(endpoint.container_id)
            if current is None:
                raise Conflict(f"container {endpoint.container_id} is not attached to {self.name}", code="not-attached")
            bound: list[PublishedPort] = []
            fresh: list[PublishedPort] = []
            try:
                for request in ports:
                    port = self._already(current, request)
                    if port is None:
                        owner = f"{name or endpoint.container_id[:12]} ({endpoint.container_id})"
                        port = self._holders.reserve(request, self._publish_address, owner, current.ip)
                        fresh.append(port)
                    bound.append(port)
                if fresh:
                    self._redirect(current, fresh)
            except BaseException:
                self._holders.release(fresh)
                raise
            return bound

    def unpublish(self, endpoint: Endpoint, ports: Sequence[PublishedPort] | None = None) -> None:
        """Stop publishing some ports, or all; connections that are open stay open."""
        with self._lock, explained(self.name):
            current = self._endpoints.get(endpoint.container_id)
            if current is None:
                return
            gone = [port for port in current.ports if ports is None or port in ports]
            if gone:
                self._unpublish(current, gone)
                self._remember(current, tuple(port for port in current.ports if port not in gone))

    def reconcile(self, live: Collection[str]) -> list[str]:
        """Make the kernel agree with the containers that live: drop the others, mend bridge, table, ports.

        Level-triggered: call it at engine start, and whenever something may have torn the rules down. Returns
        the new warnings.
        """
        with self._lock, explained(self.name):
            for container_id, endpoint in list(self._endpoints.items()):
                if container_id not in live:
                    self._detach(endpoint)
            self._ready = False
            links, firewall = self._open()
            if not self._endpoints and links.find(self.bridge) is None and not firewall.installed():
                return []
            self._ensure()
            return list(self._warnings)

    def destroy(self) -> None:
        """Remove bridge and table and give back what was switched on; Conflict while a container is attached."""
        with self._lock, explained(self.name):
            if self._endpoints:
                raise Conflict(
                    f"error while removing network: network {self.name} has active endpoints",
                    code="network-in-use",
                    subject=self.name,
                    hint="stop its containers first",
                )
            self._stop_watching()
            links, firewall = self._open()
            if links.find(self.bridge) is None and not firewall.installed():
                self.close()
                return
            firewall.uninstall()
            for link in links.all():
                if link.name.startswith(self._port_prefix):
                    links.delete(link.name)
            links.delete(self.bridge)
            switch_forwarding_off(firewall, links)
            self._records.remove_all()
            self.close()

    def close(self) -> None:
        """Close sockets, the held ports' too; bridge, table and endpoints stay for the next engine."""
        with self._lock:
            self._ready = False
            self._stop_watching()
            self._sweeper.flush()
            self._holders.release_all()
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            if self._firewall is not None:
                self._firewall.close()
                self._firewall = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside, with the lock held ------------------------------------------------------------------------------------

    def _open(self) -> tuple[Links, Firewall]:
        if self._channel is None:
            self._channel = Channel(NETLINK_ROUTE)
        if self._firewall is None:
            self._firewall = Firewall(self.bridge, self.bridge, self._port_prefix)
        return Links(self._channel), self._firewall

    def _ensure(self) -> AddressPool:
        if self._ready and self._pool is not None:
            return self._pool
        links, firewall = self._open()
        self._mtu = self._wanted_mtu or host_mtu(links)
        stored = read_subnet(self._root, self.name)
        settled = settle_bridge(
            links, self.bridge, stored, self._ranges, seed=self._seed, keep=bool(self._endpoints), mtu=self._mtu
        )
        if settled.subnet != stored:
            write_subnet(self._root, self.name, settled.subnet)
        self._bridge_index = settled.link.number
        pool = self._pool
        if pool is None or pool.subnet != settled.subnet:
            pool = self._pool = AddressPool(settled.subnet, self.name)
        for endpoint in self._endpoints.values():
            pool.reserve(IPv4Address(endpoint.ip))
        self._warnings = [*settled.warnings, *host_warnings(firewall, self.bridge)]
        self._install(firewall, pool)
        switch_forwarding_on(firewall)
        self._mend_links(links)
        self._mend_ports()
        self._ready = True
        if self._watch is None:
            self._watch = RuleWatch(self.bridge, firewall.author, self._repair)
        return pool

    def _repair(self) -> None:
        """Called by the watch's thread; what it cannot mend the next call of anyone finds and reports."""
        with self._lock:
            if self._watch is None:
                return
            self._ready = False
            try:
                self._ensure()
            except (OSError, ProaError) as error:
                self._warnings.append(f"the rules of network {self.name} were torn down and not put back: {error}")

    def _stop_watching(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()

    def _install(self, firewall: Firewall, pool: AddressPool) -> None:
        ports = [(IPv4Address(endpoint.ip), port) for endpoint in self._endpoints.values() for port in endpoint.ports]
        if not firewall.install(pool.subnet, ports, icc=self._icc):
            self._warnings.append(f"this kernel cannot keep IPv6 frames off the ports of bridge {self.bridge}")

    def _wire(
        self, pool: AddressPool, netns_fd: int, rtnl_fd: int, container_id: str, address: IPv4Address
    ) -> Endpoint:
        mac, host_interface = mac_of(address.packed), self._host_interface(address)
        self._create_veth(netns_fd, host_interface, mac)
        with Channel(NETLINK_ROUTE, fd=rtnl_fd) as channel:
            inside = Links(channel)
            peer = inside.find(_INTERFACE)
            if peer is None:
                raise Internal(f"{_INTERFACE} of {container_id} is not in the namespace of its socket", code="rtnl-fd")
            interface = IPv4Interface((address, pool.subnet.prefixlen))
            inside.configure(peer.number, _INTERFACE, interface, pool.gateway)
        return Endpoint(
            container_id=container_id,
            network=self.name,
            interface=_INTERFACE,
            ip=str(address),
            prefix=pool.subnet.prefixlen,
            gateway=str(pool.gateway),
            mac=mac,
            mtu=self._mtu,
            host_interface=host_interface,
            host_number=peer.peer,
            sysctls=_container_sysctls(),
        )

    def _host_interface(self, address: IPv4Address) -> str:
        return f"{self._port_prefix}{int(address):08x}"

    def _create_veth(self, netns_fd: int, host_interface: str, mac: str) -> None:
        """A pair, past two accidents: a link a crash left under that name, a bridge that was deleted under us."""
        links, _ = self._open()
        for attempt in range(3):
            pair = VethPair(
                host_name=host_interface,
                bridge_index=self._bridge_index,
                peer_name=_INTERFACE,
                peer_mac=mac,
                peer_netns_fd=netns_fd,
                mtu=self._mtu,
                isolated=not self._icc,
            )
            try:
                return links.create_veth(pair)
            except NetlinkFailure as error:
                if attempt == 2:
                    raise
                if links.find(self.bridge) is None:
                    self._ready = False
                    self._ensure()
                elif error.errno != errno.EEXIST or not links.delete(host_interface):
                    raise
        return None

    def _detach(self, endpoint: Endpoint) -> None:
        if endpoint.ports:
            self._unpublish(endpoint, endpoint.ports)
            self._sweeper.forget_container(IPv4Address(endpoint.ip))
        del self._endpoints[endpoint.container_id]
        self._records.remove(endpoint.container_id)
        self._sweeper.delete_link(endpoint.host_number, endpoint.host_interface)
        if self._pool is not None:
            self._pool.release(IPv4Address(endpoint.ip))

    def _already(self, endpoint: Endpoint, request: PortRequest) -> PublishedPort | None:
        if request.host_port_end > request.host_port:
            return None
        wanted = (request.container_port, request.protocol, request.host_ip or self._publish_address, request.host_port)
        for port in endpoint.ports:
            if (port.container_port, port.protocol, port.host_ip, port.host_port) == wanted:
                return port
        return None

    def _redirect(self, endpoint: Endpoint, ports: list[PublishedPort]) -> None:
        pool = self._ensure()
        _, firewall = self._open()
        self._remember(endpoint, endpoint.ports + tuple(ports))
        try:
            try:
                firewall.add(IPv4Address(endpoint.ip), ports)
            except NetlinkFailure as error:
                if error.errno not in {errno.ENOENT, errno.EEXIST}:
                    raise
                # Someone flushed the table, or a crash left an element: write it as recorded.
                self._install(firewall, pool)
        except BaseException:
            self._remember(endpoint, endpoint.ports)
            raise
        udp_ports = {port.host_port for port in ports if port.protocol == "udp"}
        if udp_ports:
            self._sweeper.forget_udp(udp_ports)

    def _unpublish(self, endpoint: Endpoint, ports: Sequence[PublishedPort]) -> None:
        _, firewall = self._open()
        firewall.remove(IPv4Address(endpoint.ip), ports)
        self._holders.release(ports)

    def _remember(self, endpoint: Endpoint, ports: tuple[PublishedPort, ...]) -> None:
        changed = msgspec.structs.replace(endpoint, ports=ports)
        self._records.write(changed)
        self._endpoints[endpoint.container_id] = changed

    def _mend_links(self, links: Links) -> None:
        """Strays of a crash go, containers' links come back onto the bridge."""
        owned = {endpoint.host_interface: endpoint.container_id for endpoint in self._endpoints.values()}
        for link in links.all():
            if not link.name.startswith(self._port_prefix):
                continue
            if owned.pop(link.name, None) is None:
                links.delete_number(link.number, link.name)
            elif link.master != self._bridge_index:
                links.enslave(link, self._bridge_index, isolated=not self._icc)
        for container_id in owned.values():
            self._warnings.append(f"the network link of container {container_id[:12]} is gone: restart the container")

    def _mend_ports(self) -> None:
        """Hold the host ports of recorded endpoints."""
        for endpoint in self._endpoints.values():
            for port in endpoint.ports:
                if not self._holders.adopt(port):
                    self._warnings.append(
                        f"another program took {port.host_ip}:{port.host_port}/{port.protocol}, published by container "
                        f"{endpoint.container_id[:12]}: connections still go to the container"
                    )


def _container_sysctls() -> dict[str, str]:
    """No IPv6 on a network without it: neither an address of its own making nor a neighbour's router advertisement."""
    if not sysctls.has_ipv6():
        return {}
    return {f"net.ipv6.conf.{_INTERFACE}.accept_ra": "0", f"net.ipv6.conf.{_INTERFACE}.disable_ipv6": "1"}


def _root_number(root: Path, name: str) -> int:
    """32 bits that differ between the roots of one machine, those of equal path in different chroots too."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = root.stat()
    identity = f"{root.absolute()}\0{state.st_dev}\0{state.st_ino}\0{name}"
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big")
