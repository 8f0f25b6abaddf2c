"""Hosts made of network namespaces: the engine's host, the outside world, containers; nothing touches the real one.

A socket belongs to the namespace its thread was in when it was made, so one test thread talks from all of them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Self

from proa.engine.relay import Relay
from proa.network import AttachRequest, BridgeNetwork, Endpoint, Fabric, NetworkSpec
from proa.network.addresses import DEFAULT_POOLS
from proa.network.endpoint import mac_of
from proa.network.links import Interior, Links, VethPair
from proa.network.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Channel
from proa.network.nft import INET, TableWriter, tables

CLONE_NEWNET = 0x40000000
HOST_ADDRESS, OUTSIDE_ADDRESS = "198.51.100.1", "198.51.100.2"
HOST_ADDRESS6, OUTSIDE_ADDRESS6 = "2001:db8::1", "2001:db8::2"
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "namespace call")


class Namespace:
    """A network namespace by descriptor, with a route socket made in it; `with` moves the test thread into it."""

    def __init__(self) -> None:
        maker = threading.Thread(target=self._make)
        maker.start()
        maker.join()
        self._back: list[int] = []

    def _make(self) -> None:
        _check(_libc.unshare(CLONE_NEWNET))
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self.route_fd = route.detach()

    def __enter__(self) -> Self:
        self._back.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        _check(_libc.setns(self.fd, CLONE_NEWNET))
        return self

    def __exit__(self, *_: object) -> None:
        back = self._back.pop()
        _check(_libc.setns(back, CLONE_NEWNET))
        os.close(back)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            os.close(self.route_fd)
            self.fd = -1

    def socket(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        with self:
            made = socket.socket(family, kind)
        made.settimeout(3)
        return made

    def links(self) -> list[str]:
        with Channel(NETLINK_ROUTE, fd=self.route_fd) as channel:
            return [link.name for link in Links(channel).all()]

    def sysctl(self, name: str, value: str | None = None) -> str:
        with self:
            path = Path("/proc/sys/net") / name
            if value is not None:
                path.write_text(value)
            return path.read_text().strip()


class Service:
    """A tcp or udp server in a namespace that answers with the address it sees and its own name."""

    def __init__(
        self,
        namespace: Namespace,
        port: int,
        *,
        kind: int = socket.SOCK_STREAM,
        name: str = "x",
        family: int = socket.AF_INET,
    ) -> None:
        self._kind = kind
        self._name = name
        self._listener = namespace.socket(kind, family)
        self._listener.settimeout(None)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("0.0.0.0" if family == socket.AF_INET else "::", port))
        if kind == socket.SOCK_STREAM:
            self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            while True:
                if self._kind == socket.SOCK_STREAM:
                    connection, peer = self._listener.accept()
                    with connection:
                        connection.sendall(f"{self._name} {peer[0]}".encode())
                else:
                    _, peer = self._listener.recvfrom(100)
                    if peer is None:  # shut down
                        return
                    self._listener.sendto(f"{self._name} {peer[0]}".encode(), peer)
        except OSError:
            pass

    def close(self) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self._thread.join(2)


def ask(namespace: Namespace, address: str, port: int, *, source: str = "", timeout_s: float = 3) -> str:
    """What the tcp service at address:port answers to a client in `namespace`."""
    with namespace.socket(family=socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
        client.settimeout(timeout_s)
        if source:
            client.bind((source, 0))
        client.connect((address, port))
        return client.recv(100).decode()


def ask_udp(namespace: Namespace, address: str, port: int, client: socket.socket | None = None) -> str:
    """What the udp service at address:port answers."""
    own = client or namespace.socket(socket.SOCK_DGRAM)
    try:
        own.sendto(b"?", (address, port))
        return own.recv(100).decode()
    finally:
        if client is None:
            own.close()


def refused(namespace: Namespace, address: str, port: int, *, timeout_s: float = 0.4) -> bool:
    """Whether a tcp connection fails."""
    try:
        ask(namespace, address, port, timeout_s=timeout_s)
    except OSError:
        return True
    return False


def udp_frame(from_mac: str, to_mac: str, source: str, target: str, port: int) -> bytes:
    """An Ethernet frame with a udp packet that says `spoof!`, whatever addresses it shall have."""

    def checksum(data: bytes) -> int:
        total = sum(struct.unpack(f"!{len(data) // 2}H", data))
        total = (total & 0xFFFF) + (total >> 16)
        return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF

    payload = b"spoof!"
    udp = struct.pack("!HHHH", 4000, port, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    addresses = IPv4Address(source).packed + IPv4Address(target).packed
    head = head[:10] + struct.pack("!H", checksum(head + addresses)) + addresses
    macs = bytes.fromhex(to_mac.replace(":", "")) + bytes.fromhex(from_mac.replace(":", ""))
    return macs + b"\x08\x00" + head + udp


def _set_mtu(namespace: Namespace, name: str, mtu: int) -> None:
    siocsifmtu = 0x8922
    with namespace.socket() as any_socket:
        fcntl.ioctl(any_socket, siocsifmtu, struct.pack("16si12x", name.encode(), mtu))


class LabRelay(Relay):
    """A relay that ends with its test, process and threads."""

    def __init__(self, run: Path, host: Namespace) -> None:
        super().__init__(run)
        self._host = host

    def leave(self) -> None:
        """What an engine does that ends: the process goes on."""
        super().close()

    def close(self) -> None:
        with self._host:
            self.settle([])
        self.leave()
        names = ("proa-relay", "proa-doorbell")
        eventually(lambda: not any(thread.name.startswith(names) for thread in threading.enumerate()))


class LabNetwork(BridgeNetwork):
    """A network with a fabric of its own, unless it is given one, and what tests ask of both."""

    def __init__(
        self,
        root: Path,
        *,
        key: str = "bridge",
        pools: Sequence[IPv4Network] = DEFAULT_POOLS,
        fabric: Fabric | None = None,
        relay: Relay | None = None,
        **spec: object,
    ) -> None:
        wanted = NetworkSpec(key=key, name=key, **spec)  # type: ignore[arg-type]
        super().__init__(fabric or Fabric(root, root / "run", relay), wanted, pools=pools)

    @property
    def subnet(self) -> IPv4Network | None:
        return next((subnet for subnet in self.subnets() if isinstance(subnet, IPv4Network)), None)

    @property
    def table(self) -> str:
        return self.fabric.table

    def said(self) -> list[str]:
        return [*self.fabric.warnings, *self.warnings]

    def settle(self, live: Collection[str]) -> list[str]:
        """`reconcile`, and what it had to say."""
        self.reconcile(live)
        return self.said()

    def close(self) -> None:
        self.fabric.close()


class Lab:
    """A host namespace with networks and containers made on demand."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.host = Namespace()
        with Channel(NETLINK_ROUTE, fd=self.host.route_fd) as channel:
            Links(channel).set_up(1, "lo")
        self.host.sysctl("ipv4/ip_forward", "0")  # a new namespace copies the real host's
        self._open: list[Namespace | Service | LabNetwork | LabRelay | Fabric | socket.socket] = [self.host]

    def outside(self) -> Namespace:
        """Another host on a LAN with ours, which routes everything by us."""
        other = Namespace()
        self._open.append(other)
        with Channel(NETLINK_ROUTE, fd=self.host.route_fd) as channel, Channel(NETLINK_ROUTE, fd=other.route_fd) as far:
            links = Links(channel)
            lan = IPv4Interface(f"{HOST_ADDRESS}/24")
            links.create_bridge("lan0", mac_of(lan.packed), 1500)
            bridge = links.find("lan0")
            assert bridge is not None
            links.add_address(bridge.number, lan, "lan0")
            links.add_address(bridge.number, IPv6Interface(f"{HOST_ADDRESS6}/64"), "lan0")
            address = IPv4Interface(f"{OUTSIDE_ADDRESS}/24")
            address6 = IPv6Interface(f"{OUTSIDE_ADDRESS6}/64")
            links.create_veth(VethPair("far0", bridge.number, "eth0", mac_of(address.packed), other.fd, 1500, False))
            inside = Links(far)
            link = inside.find("eth0")
            assert link is not None
            inside.configure(
                link.number,
                "eth0",
                Interior((address, address6), (IPv4Address(HOST_ADDRESS), IPv6Address(HOST_ADDRESS6))),
            )
        return other

    def outside_gone(self) -> None:
        """The LAN is taken away: nobody but ours forwards on this host then."""
        with Channel(NETLINK_ROUTE, fd=self.host.route_fd) as channel:
            Links(channel).delete("lan0")

    def lower_lan_mtu(self, mtu: int) -> None:
        """Make the LAN the way out, with a small MTU."""
        with Channel(NETLINK_ROUTE, fd=self.host.route_fd) as channel:
            links = Links(channel)
            lan = links.find("lan0")
            assert lan is not None
            address = IPv4Interface("203.0.113.1/24")
            links.configure(lan.number, "lan0", Interior((address,), (IPv4Address(OUTSIDE_ADDRESS),)))
        _set_mtu(self.host, "lan0", mtu)

    def network(self, root: str = "engine", **options: object) -> LabNetwork:
        """A bridge network of the engine at `root`; a second call is the engine after a restart."""
        network = LabNetwork(self.tmp_path / root, **options)  # type: ignore[arg-type]
        self._open.append(network)
        return network

    def container(
        self, network: BridgeNetwork, container_id: str, space: Namespace | None = None, **options: object
    ) -> tuple[Namespace, Endpoint]:
        """A namespace attached to a network, a new one unless `space` is given."""
        namespace = space or Namespace()
        if space is None:
            self._open.append(namespace)
        request = AttachRequest(**options)  # type: ignore[arg-type]
        return namespace, network.attach(namespace.fd, namespace.route_fd, container_id, request)

    def service(self, namespace: Namespace, port: int, **options: object) -> Service:
        """A service that lives as long as the test."""
        service = Service(namespace, port, **options)  # type: ignore[arg-type]
        self._open.append(service)
        return service

    def relay(self, root: str = "engine") -> LabRelay:
        """What carries ports of the engine at `root` that the kernel cannot redirect."""
        run = self.tmp_path / root / "run"
        run.mkdir(parents=True, exist_ok=True)
        relay = LabRelay(run, self.host)
        self._open.append(relay)
        return relay

    def fabric(self, root: str = "engine") -> Fabric:
        """The ground of an engine's networks."""
        fabric = Fabric(self.tmp_path / root, self.tmp_path / root / "run")
        self._open.append(fabric)
        return fabric

    def ear(self, namespace: Namespace, port: int) -> socket.socket:
        """A udp socket that hears what comes to a port, for as long as the test lives."""
        ear = namespace.socket(socket.SOCK_DGRAM)
        self._open.append(ear)
        ear.bind(("0.0.0.0", port))
        ear.settimeout(0.3)
        return ear

    def delete_table(self, table: str) -> None:
        """What `nft flush ruleset` by someone else does to a table."""
        with Channel(NETLINK_NETFILTER) as channel:
            writer = TableWriter(INET, table)
            writer.create()
            writer.delete()
            channel.transaction(writer.steps)

    def tables(self, family: int = 0) -> list[str]:
        """The nftables tables of the host, of one family or all."""
        with Channel(NETLINK_NETFILTER) as channel:
            return tables(channel, family)

    def close(self) -> None:
        for thing in reversed(self._open):
            thing.close()


def eventually(check: Callable[[], bool], timeout_s: float = 5) -> bool:
    """Whether `check` comes true in time."""
    end = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def open_files() -> set[str]:
    """Descriptors of this process with what they are open on."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:  # the listing's own
            continue
    return found
