"""What the bridge networks of one engine share: sockets, the one table, held host ports, the watch over the rules.

The table's content is a function of the networks that are up and of their published ports, so whatever changes a
network writes it anew (`install`), in one transaction; only ports come and go as single elements. All state is in the
kernel and in small files: a new engine adopts what an old one left.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Protocol

from proa.errors import ProaError
from proa.network.addresses import AnyNetwork
from proa.network.endpoint import Endpoint
from proa.network.firewall import Firewall, Target, Zone
from proa.network.host import switch_forwarding_off
from proa.network.links import Links
from proa.network.netlink import NETLINK_ROUTE, Channel
from proa.network.ports import PortHolders
from proa.network.relay import Relay, redirected, settle
from proa.network.sweeper import Sweeper
from proa.network.watch import RuleWatch

__all__ = ["Fabric", "Member", "root_number"]


class Member(Protocol):
    """A network as the fabric sees it; called with the fabric's lock held."""

    bridge: str
    zone: Zone | None

    def targets(self) -> Iterator[Target]:
        """Its published ports with the container's address."""
        ...

    def owned_links(self) -> dict[str, Endpoint]:
        """Its endpoints by the name of their link on the host."""
        ...

    def mend(self) -> None:
        """Make true what the network needs; the table is written afterwards."""
        ...


class Fabric:
    """The ground that an engine's bridge networks stand on, in the network namespace of the calling threads.

    lock: held for everything that changes any network; `members` has those that are known; relay: what carries ports
    that the kernel cannot redirect, which are refused without one.
    """

    def __init__(self, root: Path, run_dir: Path, relay: Relay | None = None) -> None:
        self.root = root
        self.run_dir = run_dir
        self.number = root_number(root, "bridge")
        self.table = f"proa-{self.number:08x}"
        # A port's name says whether its network has IPv6: not every kernel lets a rule ask for the port's bridge.
        self.port_prefixes = {ipv6: f"p{'w' if ipv6 else 'v'}{self.number & 0xFFFF:04x}" for ipv6 in (False, True)}
        self.lock = threading.RLock()
        self.members: dict[str, Member] = {}
        self.relay = relay
        self.holders = PortHolders(relay)
        self.sweeper = Sweeper()
        self.warnings: list[str] = []
        self._watch: RuleWatch | None = None
        self._channel: Channel | None = None
        self._firewall: Firewall | None = None

    @property
    def links(self) -> Links:
        """The host's links."""
        if self._channel is None:
            self._channel = Channel(NETLINK_ROUTE)
        return Links(self._channel)

    @property
    def firewall(self) -> Firewall:
        """The engine's table."""
        if self._firewall is None:
            self._firewall = Firewall(self.table, self.port_prefixes)
        return self._firewall

    def present(self) -> bool:
        """Whether anything of ours is in the kernel."""
        return self.firewall.installed() or any(self.owns(member.bridge) for member in self.members.values())

    def install(self) -> None:
        """Write the table for the networks that are up, and keep watch over it."""
        up = [member for member in self.members.values() if member.zone is not None]
        zones = [member.zone for member in up if member.zone is not None]
        self.warnings = []
        targets = [target for member in up for target in member.targets()]
        relay = self.relay
        complete = self.firewall.install(
            zones,
            [target for target in targets if redirected(target)],
            relayed=relay is not None and relay.everything,
            to_loopback=relay is not None,
        )
        if relay is not None:
            self._settle(relay, targets, [subnet for zone in zones for subnet in zone.subnets])
        if not complete:
            self.warnings.append("this kernel cannot filter bridged IPv6 frames, or cannot refuse connections to [::1]")
        if self._watch is None:
            self._watch = RuleWatch(self.table, self.firewall.author, self._repair)

    def publish(self, targets: Collection[Target]) -> None:
        """Lead ports to containers. FileExistsError, FileNotFoundError: the table is not what we wrote."""
        self.firewall.add(target for target in targets if redirected(target))
        self._open_doors(targets)

    def withdraw(self, targets: Collection[Target]) -> None:
        """Lead them nowhere; let go of them."""
        self.firewall.remove(target for target in targets if redirected(target))
        self.holders.release(port for _, port in targets)

    def part(self, addresses: Iterable[IPv4Address | IPv6Address]) -> None:
        """A container has gone: nothing of its connections shall be remembered."""
        for address in addresses:
            self.sweeper.forget_container(address)
            if self.relay is not None:
                self.relay.part(str(address))

    def _settle(self, relay: Relay, targets: Collection[Target], near: Sequence[AnyNetwork]) -> None:
        try:
            reason = settle(relay, self.links, near)
            if reason:
                self.warnings.append(reason)
            relay.settle([port for _, port in targets if self.holders.door(port) is not None])
            self._open_doors(targets)
        except (OSError, ProaError) as error:
            self.warnings.append(f"published ports are not all reachable: {error}")

    def _open_doors(self, targets: Iterable[Target]) -> None:
        if self.relay is None:
            return
        others = {
            first: second
            for member in self.members.values()
            for endpoint in member.owned_links().values()
            for first, second in ((endpoint.ip, endpoint.ip6), (endpoint.ip6, endpoint.ip))
        }
        for address, port in targets:
            door = self.holders.door(port)
            if door is not None:
                self.relay.open(port, [text for text in (str(address), others.get(str(address))) if text], door)

    def mend_links(self) -> None:
        """Strays of a crash go: links that look like ours and belong to no endpoint."""
        owned = {name for member in self.members.values() for name in member.owned_links()}
        for link in self.links.all():
            if self.is_port(link.name) and link.name not in owned:
                self.links.delete_number(link.number, link.name)

    def is_port(self, name: str) -> bool:
        """Whether a link's name is one that we give."""
        return name.startswith(tuple(self.port_prefixes.values()))

    def _repair(self) -> None:
        """Called by the watch's thread; what it cannot mend the next call of anyone finds and reports."""
        with self.lock:
            if self._watch is None:
                return
            try:
                for member in self.members.values():
                    if member.zone is not None:
                        member.mend()
                self.install()
            except (OSError, ProaError) as error:
                self.warnings.append(f"the rules of table {self.table} were torn down and not put back: {error}")

    def dissolve(self) -> None:
        """Take everything down that is left when no network is up, and give back what was switched on."""
        self._stop_watching()
        if self.present():
            self.firewall.uninstall()
            for link in self.links.all():
                if self.is_port(link.name):
                    self.links.delete(link.name)
            for member in self.members.values():
                self.delete_bridge(member.bridge)
        switch_forwarding_off(self.firewall, self.links)
        self.close()

    def close(self) -> None:
        """Close sockets, the held ports' too; bridges, table and endpoints stay for the next engine."""
        with self.lock:
            self._stop_watching()
            self.sweeper.flush()
            for member in self.members.values():
                member.zone = None
            self.holders.close()
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            if self._firewall is not None:
                self._firewall.close()
                self._firewall = None

    def _stop_watching(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()

    def owns(self, name: str) -> bool:
        """Whether there is a bridge of that name that we made: names can be the user's choice."""
        link = self.links.find(name)
        return link is not None and link.kind == "bridge" and link.alias == self.table

    def delete_bridge(self, name: str) -> None:
        """Delete a bridge that we made."""
        if self.owns(name):
            self.links.delete(name)


def root_number(root: Path, name: str) -> int:
    """32 bits that differ between the roots of one machine, those of equal path in different chroots too."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = root.stat()
    identity = f"{root.absolute()}\0{state.st_dev}\0{state.st_ino}\0{name}"
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big")
