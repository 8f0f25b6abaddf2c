"""Networks as users meet them: names, several at once, live changes, and what survives whom."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import PrivateEngine, kill_and_wait, until

import proa
from proa.network.fabric import root_number
from proa.network.links import Links
from proa.network.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Channel
from proa.network.nft import INET, TableWriter, tables

pytestmark = pytest.mark.root


@pytest.fixture
def host(box: PrivateEngine) -> Iterator[PrivateEngine]:
    """The shared engine; its networks go after each test."""
    yield box
    ids = box.out("ps", "-aq").split()
    if ids:
        box.proa("rm", "-f", "-v", *ids)
    names = box.out("network", "ls", "--filter", "type=custom", "-q").split()
    if names:
        box.proa("network", "rm", *names)


def web(engine: PrivateEngine, name: str, *options: str) -> None:
    """A container that says its name on port 80."""
    script = f"mkdir /www; echo {name} > /www/index.html; exec httpd -f -p 80 -h /www"
    engine.proa("run", "-d", "--name", name, *options, "busybox", "sh", "-c", script)


def idle(engine: PrivateEngine, name: str, *options: str) -> None:
    engine.proa("run", "-d", "--name", name, *options, "busybox", "sleep", "1000")


def inside(engine: PrivateEngine, name: str, script: str, *, check: bool = True) -> str:
    return engine.proa("exec", name, "sh", "-c", script, check=check).stdout.decode()


def entered(pid: int, *words: str) -> str:
    """A program of a container's, run in its namespaces without the engine."""
    command = ["nsenter", "-t", str(pid), "-m", "-n", "--", "/bin/busybox", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout


def fetch(address: str, port: int) -> str:
    with socket.create_connection((address, port), 5) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return client.makefile().read().splitlines()[-1]


def answers(address: str, port: int) -> bool:
    try:
        return bool(fetch(address, port))
    except OSError:
        return False


def resolver_pid(engine: PrivateEngine) -> int:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"proa resolver" in words and str(engine.run_dir).encode() in words:
            return int(pid)
    return 0


def test_names_aliases_and_round_robin(host: PrivateEngine) -> None:
    host.proa("network", "create", "front")
    for name in ("web1", "web2"):
        web(host, name, "--network", "front", "--network-alias", "all")
    idle(host, "client", "--network", "front", "--hostname", "boat")
    assert inside(host, "client", "wget -qO- http://web1; wget -qO- http://web2.front") == "web1\nweb2\n"
    asked = inside(host, "client", "for i in 1 2 3 4 5 6; do wget -qO- http://all; done").split()
    assert set(asked) == {"web1", "web2"}
    assert inside(host, "web1", "ping -c1 -W2 boat >/dev/null && echo ok") == "ok\n"
    address = host.inspect("web1")["NetworkSettings"]["Networks"]["front"]
    assert "web1.front" in inside(host, "client", f"nslookup {address['IPAddress']}")
    found = inside(host, "client", "nslookup web1")
    assert address["IPAddress"] in found
    assert address["GlobalIPv6Address"] in found
    assert inside(host, "client", f"wget -qO- 'http://[{address['GlobalIPv6Address']}]'", check=False) in ("web1\n", "")
    host.proa("rename", "web1", "other")
    assert inside(host, "client", "wget -qO- http://other") == "web1\n"
    assert "NXDOMAIN" in inside(host, "client", "nslookup web1", check=False)
    host.proa("rm", "-f", "web2")
    assert set(inside(host, "client", "for i in 1 2 3; do wget -qO- http://all; done").split()) == {"web1"}
    assert inside(host, "client", "cat /etc/resolv.conf").startswith("nameserver 127.0.0.11\n")
    assert "host.docker.internal" in inside(host, "client", "cat /etc/hosts")


def test_the_default_bridge_has_no_names_but_the_host(host: PrivateEngine) -> None:
    idle(host, "plain")
    gateway = host.inspect("plain")["NetworkSettings"]["Gateway"]
    assert f"{gateway}\thost.docker.internal\n" in inside(host, "plain", "cat /etc/hosts")
    assert "127.0.0.11" not in inside(host, "plain", "cat /etc/resolv.conf")


def test_a_port_53_of_the_containers_own(host: PrivateEngine) -> None:
    host.proa("network", "create", "front")
    script = "mkdir /www; echo mine > /www/index.html; exec httpd -f -p 53 -h /www"
    host.proa("run", "-d", "--name", "server", "--network", "front", "busybox", "sh", "-c", script)
    idle(host, "client", "--network", "front")
    assert inside(host, "client", "wget -qO- http://server:53") == "mine\n"
    assert "Address" in inside(host, "server", "nslookup client")


def test_names_resolve_while_the_engine_is_gone(host: PrivateEngine) -> None:
    host.proa("network", "create", "front")
    web(host, "web1", "--network", "front", "-p", "127.0.0.1::80")
    idle(host, "client", "--network", "front")
    pid = host.inspect("client")["State"]["Pid"]
    port = int(host.out("port", "web1", "80").rpartition(":")[2])
    resolver = resolver_pid(host)
    with socket.create_connection(("127.0.0.1", port), 5) as open_before:
        host.kill_engine()
        assert "web1" in entered(pid, "wget", "-qO-", "http://web1")
        assert fetch("127.0.0.1", port) == "web1"
        host.proa("ps")
        open_before.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert open_before.makefile().read().endswith("web1\n")
    assert resolver_pid(host) == resolver
    web(host, "web2", "--network", "front")
    assert inside(host, "client", "wget -qO- http://web2; wget -qO- http://web1") == "web2\nweb1\n"


def test_a_resolver_that_was_killed_is_replaced(host: PrivateEngine) -> None:
    host.proa("network", "create", "front")
    web(host, "web1", "--network", "front")
    idle(host, "client", "--network", "front")
    first = resolver_pid(host)
    kill_and_wait(first)
    until(lambda: resolver_pid(host) not in (0, first), "another resolver")
    until(lambda: inside(host, "client", "wget -qO- http://web1", check=False) == "web1\n", "the name")
    # And when nobody was there to replace it.
    second = resolver_pid(host)
    host.kill_engine()
    kill_and_wait(second)
    assert inside(host, "client", "wget -qO- http://web1") == "web1\n"


def test_a_container_that_ends_without_an_engine_is_let_go(host: PrivateEngine) -> None:
    host.proa("network", "create", "front")
    idle(host, "one", "--network", "front")
    idle(host, "two", "--network", "front")
    pid = host.inspect("one")["State"]["Pid"]
    host.kill_engine()
    kill_and_wait(pid, signal.SIGKILL)
    host.proa("wait", "one")
    assert list(json.loads(host.out("network", "inspect", "front"))[0]["Containers"]) == [host.inspect("two")["Id"]]
    assert "NXDOMAIN" in inside(host, "two", "nslookup one", check=False)


def test_connect_and_disconnect_live(host: PrivateEngine) -> None:
    host.proa("network", "create", "--subnet", "10.99.7.0/24", "back")
    web(host, "db", "--network", "back", "--ip", "10.99.7.7")
    idle(host, "client")
    inside(host, "client", "echo '192.0.2.9 mine' >> /etc/hosts")
    before = inside(host, "client", "cat /etc/hosts /etc/resolv.conf; ip route")
    host.proa("network", "connect", "--alias", "desk", "--ip", "10.99.7.9", "back", "client")
    assert inside(host, "client", "wget -qO- http://db") == "db\n"
    assert inside(host, "db", "ping -c1 -W2 desk >/dev/null && echo ok") == "ok\n"
    hosts = inside(host, "client", "cat /etc/hosts")
    assert "192.0.2.9 mine\n" in hosts
    assert "10.99.7.9\t" in hosts
    place = host.inspect("client")["NetworkSettings"]["Networks"]["back"]
    assert (place["IPAddress"], place["Aliases"]) == ("10.99.7.9", ["desk"])
    assert "default via" in inside(host, "client", "ip route")
    host.proa("network", "disconnect", "back", "client")
    assert inside(host, "client", "cat /etc/hosts /etc/resolv.conf; ip route") == before
    assert "eth1" not in inside(host, "client", "ip link")
    assert "NXDOMAIN" in inside(host, "db", "nslookup desk", check=False)
    inside(host, "client", "echo nameserver 192.0.2.53 > /etc/resolv.conf")
    host.proa("network", "connect", "back", "client")
    assert inside(host, "client", "cat /etc/resolv.conf") == "nameserver 192.0.2.53\n"
    host.proa("network", "disconnect", "bridge", "client")
    assert "default via 10.99.7.1" in inside(host, "client", "ip route")
    host.proa("restart", "-t", "0", "client")
    assert list(host.inspect("client")["NetworkSettings"]["Networks"]) == ["back"]
    assert inside(host, "client", "wget -qO- http://db") == "db\n"


def test_the_way_out_goes_by_priority(host: PrivateEngine) -> None:
    for name, number in (("aa", 1), ("bb", 2), ("cc", 3)):
        host.proa("network", "create", "--ipv6=false", "--subnet", f"10.99.{number}.0/24", name)
    host.proa("network", "create", "--internal", "hidden")
    networks = ("--network", "bb", "--network", "name=aa", "--network", "name=cc,gw-priority=1", "--network", "hidden")
    web(host, "web1", *networks, "-p", "127.0.0.1:18080:80")

    def way() -> str:
        return inside(host, "web1", "ip route | grep default").split()[2]

    assert way() == "10.99.3.1"
    assert fetch("127.0.0.1", 18080) == "web1"
    host.proa("network", "disconnect", "cc", "web1")
    assert way() == "10.99.1.1"
    assert fetch("127.0.0.1", 18080) == "web1"
    host.proa("network", "disconnect", "aa", "web1")
    host.proa("network", "disconnect", "bb", "web1")
    assert "default" not in inside(host, "web1", "ip route")
    assert host.out("port", "web1") == ""
    host.proa("network", "connect", "bb", "web1")
    assert fetch("127.0.0.1", 18080) == "web1"


def test_internal_networks_ask_nobody_outside(host: PrivateEngine) -> None:
    host.proa("network", "create", "--internal", "hidden")
    web(host, "db", "--network", "hidden")
    idle(host, "client", "--network", "hidden")
    assert inside(host, "client", "wget -qO- http://db") == "db\n"
    assert "NXDOMAIN" in inside(host, "client", "nslookup proa.example", check=False)
    assert "default" not in inside(host, "client", "ip route")


def test_ports_are_changed_while_it_runs(host: PrivateEngine) -> None:
    web(host, "web1", "-p", "127.0.0.1:18081:80")
    until(lambda: answers("127.0.0.1", 18081), "the server")
    with socket.create_connection(("127.0.0.1", 18081), 5) as kept:
        host.proa("update", "--publish-add", "127.0.0.1:18082:80", "--publish-rm", "18081:80", "web1")
        assert fetch("127.0.0.1", 18082) == "web1"
        with pytest.raises(OSError, match=r"."):
            socket.create_connection(("127.0.0.1", 18081), 1).close()
        kept.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert kept.makefile().read().endswith("web1\n")
    assert host.out("port", "web1") == "80/tcp -> 127.0.0.1:18082"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        asked = ("update", "--publish-add", f"127.0.0.1:{number}:80", "--publish-rm", "80", "web1")
        assert b"already in use" in host.proa(*asked, check=False).stderr
    assert fetch("127.0.0.1", 18082) == "web1"
    assert b"is not published" in host.proa("update", "--publish-rm", "99", "web1", check=False).stderr
    host.proa("restart", "-t", "0", "web1")
    assert host.out("port", "web1") == "80/tcp -> 127.0.0.1:18082"
    host.proa("update", "--publish-rm", "80/tcp", "web1")
    assert host.out("port", "web1") == ""


def test_rules_that_were_flushed_come_back(host: PrivateEngine) -> None:
    host.proa("network", "create", "front")
    web(host, "web1", "--network", "front", "-p", "127.0.0.1:18083:80")
    with Channel(NETLINK_NETFILTER) as channel:
        (table,) = (t for t in tables(channel, INET) if t.startswith("proa-") and _rules(t).find("18083") >= 0)
        writer = TableWriter(INET, table)
        writer.delete()
        channel.transaction(writer.steps)
        until(lambda: table in tables(channel, INET), "the table", 5)
    assert fetch("127.0.0.1", 18083) == "web1"
    host.kill_engine()
    with Channel(NETLINK_NETFILTER) as channel:
        channel.transaction(writer.steps)
    host.proa("network", "reload")
    assert fetch("127.0.0.1", 18083) == "web1"


def _rules(table: str) -> str:
    """The table in nft's own words, which shows that nft understands it."""
    command = ["nft", "list", "table", "inet", table]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_networks_are_kept_and_only_once(host: PrivateEngine) -> None:
    made = host.out("network", "create", "--label", "a=b", "-o", "com.docker.network.driver.mtu=1400", "kept")
    record = json.loads(host.out("network", "inspect", "kept"))
    host.kill_engine()
    assert json.loads(host.out("network", "inspect", made[:12])) == record
    assert b"already exists" in host.proa("network", "create", "kept", check=False).stderr
    assert host.out("run", "--rm", "--network", "kept", "busybox", "cat", "/sys/class/net/eth0/mtu") == "1400"
    idle(host, "stopped", "--network", "kept")
    host.proa("stop", "-t", "0", "stopped")
    assert host.out("network", "prune", "-f") == ""
    host.proa("rm", "stopped")
    assert "kept" in host.out("network", "prune", "-f")
    assert not list((host.root / "networks").iterdir())


def test_what_cannot_be_is_refused_and_leaves_nothing(host: PrivateEngine) -> None:
    foreign = f"br{os.getpid()}"
    with Channel(NETLINK_ROUTE) as channel:
        Links(channel).create_bridge(foreign, "02:00:00:00:00:77", 1500)
    for words in (
        ("--subnet", "127.0.0.0/8"),
        ("--subnet", "10.0.0.0/31"),
        ("--subnet", "10.99.1.0/24", "--ip-range", "10.98.0.0/24"),
        ("-o", "com.docker.network.driver.mtu=12"),
        ("-o", "com.docker.network.bridge.name=lo"),
        ("-o", f"com.docker.network.bridge.name={foreign}"),
        ("-o", "com.docker.network.bridge.name=../x"),
        ("-o", "com.docker.network.bridge.enable_icc=perhaps"),
        ("-d", "macvlan"),
        ("-d", "macvlan", "-o", "parent=nosuch0", "--subnet", "192.0.2.0/24"),
        ("-d", "../../x"),
        ("--ipv4=false", "--ipv6=false"),
    ):
        assert host.proa("network", "create", *words, "bad", check=False).returncode == 1, words
    for name in ("bad name", "../x", "-x", "a\n", "x" * 300):
        assert host.proa("network", "create", "--", name, check=False).returncode == 1
    assert host.out("network", "ls", "--filter", "type=custom", "-q") == ""
    table = f"proa-{root_number(host.root, 'bridge'):08x}"
    with Channel(NETLINK_ROUTE) as channel:
        assert {link.name for link in Links(channel).all() if link.alias == table} <= {table}  # the default bridge
        assert Links(channel).delete(foreign), "the bridge of somebody else is gone"
    for words in (("--mac-address", "01:00:5e:00:00:01"), ("--network", "bridge", "--network", "none")):
        done = host.proa("run", "--rm", *words, "busybox", "true", check=False)
        assert done.returncode == 125, done


def test_a_port_open_to_the_world_is_told(host: PrivateEngine) -> None:
    done = host.proa("create", "-p", "18084:80", "busybox", "true")
    assert b"published on all addresses of this host" in done.stderr
    assert b"80/tcp" in done.stderr
    assert host.proa("create", "-p", "127.0.0.1:18084:80", "busybox", "true").stderr == b""


def test_the_sdk(host: PrivateEngine) -> None:
    with proa.connect(host.socket) as engine:
        made = engine.networks.create("typed", subnets=["10.99.8.0/24"], labels={"a": "b"}, internal=True, ipv6=False)
        assert made.ipam.config is not None
        assert (made.name, made.internal, made.ipam.config[0].subnet) == ("typed", True, "10.99.8.0/24")
        container = engine.containers.run_detached(
            "busybox", ["sleep", "1000"], network="typed", network_aliases=["al"]
        )
        details = engine.networks.get("typed")
        assert details.containers is not None
        assert details.containers[container.id].ipv4_address == "10.99.8.2/24"
        engine.networks.disconnect("typed", container.id)
        engine.networks.connect("bridge", container.id)
        ports = container.change_ports(add={"80": "127.0.0.1:18085"})
        assert ports == {"80/tcp": ["127.0.0.1:18085"]}
        assert container.change_ports(remove=["80"]) == {}
        with pytest.raises(proa.NotFound):
            container.change_ports(remove=["80"])
        container.remove(force=True)
        engine.networks.remove("typed")
        with pytest.raises(proa.NotFound):
            engine.networks.get("typed")
