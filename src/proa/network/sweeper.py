"""What is done after a container left or a port was published, away from the caller, because the kernel takes its time.

Deleting a link waits for a grace period (30 ms) each; most links are gone by then, as a network namespace that dies
takes its own along, many in one grace period. Forgetting tracked flows walks a large table (20 ms), once for all that
wait.
"""

from __future__ import annotations

import threading
from ipaddress import IPv4Address, IPv6Address

from proa.network.conntrack import forget_flows
from proa.network.links import Links
from proa.network.netlink import NETLINK_ROUTE, Channel, NetlinkFailure

__all__ = ["Sweeper"]


class Sweeper:
    """Collects work and does it a moment later in a thread of its own, which ends when there is none. Thread-safe.

    Links go by number: the kernel does not use one twice, so a new link of the same name is safe.
    """

    def __init__(self, delay_s: float = 0.2) -> None:
        self._delay_s = delay_s
        self._lock = threading.Lock()
        self._links: dict[int, str] = {}
        self._containers: set[IPv4Address | IPv6Address] = set()
        self._udp_ports: set[int] = set()
        self._timer: threading.Timer | None = None

    def delete_link(self, number: int, name: str) -> None:
        """Delete this link; one that is gone by then is fine."""
        with self._lock:
            self._links[number] = name
            self._wake()

    def forget_container(self, address: IPv4Address | IPv6Address) -> None:
        """Forget flows that were translated to this address."""
        with self._lock:
            self._containers.add(address)
            self._wake()

    def forget_udp(self, host_ports: set[int]) -> None:
        """Forget udp flows that began before these host ports were published."""
        with self._lock:
            self._udp_ports |= host_ports
            self._wake()

    def flush(self) -> None:
        """Do now what is waiting. What the kernel refuses is left: the next reconcile finds stray links."""
        with self._lock:
            links, self._links = self._links, {}
            containers, self._containers = self._containers, set()
            udp_ports, self._udp_ports = self._udp_ports, set()
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        try:
            if containers or udp_ports:
                forget_flows(containers, udp_ports)
            if links:
                with Channel(NETLINK_ROUTE) as channel:
                    inside = Links(channel)
                    for number, name in links.items():
                        inside.delete_number(number, name)
        except NetlinkFailure:
            pass

    def _wake(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._delay_s, self.flush)
            self._timer.daemon = True
            self._timer.start()
