"""Two hundred containers on one network: the last joins as fast as the first, and nothing of them stays."""

from __future__ import annotations

import statistics
import time

import pytest
from netlab import HOST_ADDRESS, Lab, Namespace, ask, eventually

from proa.network import PortRequest
from proa.network.links import Links
from proa.network.netlink import NETLINK_ROUTE, Channel

pytestmark = pytest.mark.root
COUNT = 200


def test_two_hundred_containers(lab: Lab) -> None:
    outside = lab.outside()
    network = lab.network(ipv6=True)
    network.ensure()
    with Channel(NETLINK_ROUTE) as channel:
        routes_before = sorted(map(str, Links(channel).routes()))
    spaces = [Namespace() for _ in range(COUNT)]
    try:
        attach, publish = [], []
        for number, space in enumerate(spaces):
            began = time.process_time()
            endpoint = network.attach(space.fd, space.route_fd, f"c{number}")
            attached = time.process_time()
            network.publish(endpoint, [PortRequest(container_port=80, host_port=20000 + number)])
            attach.append(attached - began)
            publish.append(time.process_time() - attached)
        for samples in (attach, publish):
            first, last = statistics.median(samples[:30]), statistics.median(samples[-30:])
            # In processor time, the kernel's included: others wait for the same locks. Linear growth would be far more.
            assert last < 2 * first + 0.002, (first, last)
        lab.service(spaces[-1], 80, name="last")
        assert ask(outside, HOST_ADDRESS, 20000 + COUNT - 1).startswith("last ")
        endpoints = list(network.endpoints().values())
        assert len({e.ip for e in endpoints}) == len({e.ip6 for e in endpoints}) == COUNT
        for endpoint in endpoints:
            network.detach(endpoint)
    finally:
        for space in spaces:
            space.close()
    assert eventually(lambda: not [name for name in lab.host.links() if network.fabric.is_port(name)], 20)
    with Channel(NETLINK_ROUTE) as channel:
        assert sorted(map(str, Links(channel).routes())) == routes_before
    assert list(network.targets()) == []
    network.destroy()
    assert lab.tables() == []
