"""Containers on the network: none, host and bridge, published ports, names."""

from __future__ import annotations

import os
import socket
import urllib.request
from pathlib import Path

import pytest
from engines import PrivateEngine, until

pytestmark = pytest.mark.root

WEB = "mkdir -p /www && echo served > /www/index.html && exec httpd -f -p 80 -h /www"


def fetch(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/", timeout=10) as reply:
        return reply.read().decode().strip()


def answers(box: PrivateEngine, address: str) -> str:
    """What a server says as soon as it listens."""

    def once() -> str:
        try:
            return fetch(address)
        except OSError:
            return ""

    return until(once, address)


def test_none_has_loopback_only(box: PrivateEngine) -> None:
    assert box.sh("ls /sys/class/net; ip -o addr").split()[0] == "lo"
    assert "eth0" not in box.sh("ip -o link")
    assert box.sh("ip route; echo end") == "end"
    assert box.sh("echo x | nc -w 2 10.255.255.254 9 2>/dev/null || echo unreachable") == "unreachable"


def test_host_is_the_hosts(box: PrivateEngine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run = box.popen("run", "--rm", "--network", "host", "busybox", "nc", "127.0.0.1", str(port))
        server.settimeout(20)
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"from the host\n")
        assert run.communicate(timeout=20)[0] == b"from the host\n"
    namespace = box.out("run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net")
    assert namespace == os.readlink("/proc/self/ns/net")
    assert box.out("run", "--rm", "--network", "host", "busybox", "hostname") == os.uname().nodename


def test_bridge_gives_an_address_a_route_and_names(box: PrivateEngine) -> None:
    box.proa(
        "run",
        "-d",
        "--name",
        "bridged",
        "--hostname",
        "me",
        "--add-host",
        "there:192.0.2.7",
        "busybox",
        "sleep",
        "1000",
    )
    network = box.inspect("bridged")["NetworkSettings"]
    address, gateway = network["Networks"]["bridge"]["IPAddress"], network["Networks"]["bridge"]["Gateway"]
    assert address
    assert f"inet {address}/" in box.out("exec", "bridged", "ip", "-o", "-4", "addr", "show", "eth0")
    assert box.out("exec", "bridged", "ip", "route").startswith(f"default via {gateway} dev eth0")
    hosts = box.out("exec", "bridged", "cat", "/etc/hosts").split("\n")
    assert any(line.split() == [address, "me"] for line in hosts)
    assert any(line.split() == ["192.0.2.7", "there"] for line in hosts)
    assert "nameserver" in box.out("exec", "bridged", "cat", "/etc/resolv.conf")
    assert box.out("exec", "bridged", "sh", "-c", f"ping -c 1 -W 5 {gateway} >/dev/null && echo reached") == "reached"
    # The address is free again afterwards.
    box.proa("rm", "-f", "bridged")
    assert "bridged" not in box.out("network", "inspect", "bridge")


def test_two_containers_talk_over_the_bridge(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "server", "busybox", "sh", "-c", WEB)
    address = box.inspect("server")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    ask = f"until wget -q -O - http://{address}/ 2>/dev/null; do usleep 10000; done"
    assert box.out("run", "--rm", "busybox", "timeout", "20", "sh", "-c", ask) == "served"
    other = box.out("run", "--rm", "busybox", "sh", "-c", "ip -o -4 addr show eth0 | tr -s ' ' | cut -d' ' -f4")
    assert other.split("/")[0] != address


def test_published_ports(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "busybox", "sh", "-c", WEB)
    published = box.out("port", "web", "80")
    assert published.startswith("127.0.0.1:")
    assert answers(box, published) == "served"  # from loopback
    ports = box.inspect("web")["NetworkSettings"]["Ports"]
    assert ports["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": published.rpartition(":")[2]}]
    assert f"{published}->80/tcp" in box.out("ps", "--format", "{{.Ports}}")
    box.proa("stop", "-t", "0", "web")
    with pytest.raises(OSError, match="refused"):
        fetch(published)
    box.proa("start", "web")
    assert answers(box, box.out("port", "web", "80")) == "served"


def test_ports_published_everywhere(box: PrivateEngine) -> None:
    address = _own_address()
    box.proa("run", "-d", "--name", "web", "-p", "80", "busybox", "sh", "-c", WEB)
    port = box.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    assert answers(box, f"127.0.0.1:{port}") == "served"
    assert answers(box, f"{address}:{port}") == "served"
    # Another container reaches it by the host's address too.
    ask = f"until wget -q -O - http://{address}:{port}/ 2>/dev/null; do usleep 10000; done"
    assert box.out("run", "--rm", "busybox", "timeout", "20", "sh", "-c", ask) == "served"


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def test_a_published_port_survives_the_engine(busybox: PrivateEngine) -> None:
    busybox.proa("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "busybox", "sh", "-c", WEB)
    published = busybox.out("port", "web", "80")
    assert answers(busybox, published) == "served"
    busybox.kill_engine()
    assert fetch(published) == "served"
    assert busybox.out("port", "web", "80") == published
    assert fetch(published) == "served"
    busybox.proa("rm", "-f", "web")
    with pytest.raises(OSError, match="refused"):
        fetch(published)


def test_a_busy_port(box: PrivateEngine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = box.proa("run", "--name", "late", "-p", f"127.0.0.1:{port}:80", "busybox", "true", check=False)
    assert done.returncode == 125
    assert str(port).encode() in done.stderr
    assert done.stderr.count(b"\n") <= 2
    assert box.inspect("late")["State"]["Status"] == "created"


def test_nothing_of_the_hosts_loopback_is_reachable(box: PrivateEngine, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        gateway = box.out("run", "--rm", "busybox", "sh", "-c", "ip route | head -n 1 | cut -d' ' -f3")
        for address in ("127.0.0.1", gateway):
            script = f"nc -w 2 {address} {port} </dev/null >/dev/null 2>&1 && echo open || echo shut"
            assert box.out("run", "--rm", "busybox", "sh", "-c", script) == "shut"
