"""Published ports of an unprivileged user's engine: opened outside, carried inside, by processes of our own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import until

# Says where each client comes from, then repeats what it hears.
SERVER = """
import socket, sys, threading
family = socket.AF_INET6 if sys.argv[1] == "6" else socket.AF_INET
def tcp(number):
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", number))
    listener.listen(64)
    while True:
        connection, place = listener.accept()
        threading.Thread(target=talk, args=(connection, place)).start()
def talk(connection, place):
    connection.sendall(f"{place[0]}\\n".encode())
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.close()
def udp(number):
    listener = socket.socket(family, socket.SOCK_DGRAM)
    listener.bind(("", number))
    while True:
        data, place = listener.recvfrom(65536)
        listener.sendto(place[0].encode() + b" " + data, place)
for kind, number in ((tcp, 80), (tcp, 81), (udp, 53)):
    threading.Thread(target=kind, args=(number,)).start()
"""
ASK = """
import socket, sys
kind, address, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
with socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as client:
    client.settimeout(10)
    client.connect((address, number))
    if kind == "udp":
        client.send(b"?")
    print(client.recv(100).decode().split()[0])
"""


@pytest.fixture(scope="module")
def mine(tun: None, user_engine: Callable[..., Any]) -> Any:
    return user_engine()


@pytest.fixture
def server(mine: Any) -> Iterator[Callable[..., str]]:
    """Starts a container that serves, with these options; its name."""
    started: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(*options: str, family: int = 4) -> str:
        name = f"server{len(started)}"
        mine.proa("run", "-d", "--name", name, *options, "busybox", "sleep", "1000")
        pid = str(mine.inspect(name)["State"]["Pid"])
        command = ["nsenter", "-t", pid, "-n", sys.executable, "-c", SERVER, str(family)]
        started.append((name, subprocess.Popen(command)))
        until(lambda: listening(int(pid)), "the server")
        return name

    yield start
    for name, process in started:
        process.kill()
        process.wait()
        mine.proa("rm", "-f", name, check=False)


def listening(pid: int) -> bool:
    """Whether the server's last port is open in a container (0x35 is 53)."""
    return any(":0035 " in Path(f"/proc/{pid}/net/{name}").read_text() for name in ("udp", "udp6"))


def listeners_of(uid: int) -> set[int]:
    """Ports of this host at which processes of that user listen (proc_net_tcp(5))."""
    rows = [row.split() for file in ("tcp", "tcp6") for row in Path(f"/proc/net/{file}").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and int(row[7]) == uid}


def hear(address: str, number: int) -> str:
    """What address the container sees."""
    with socket.create_connection((address, number), timeout=10) as client:
        return client.recv(100).decode().strip()


def refused(address: str, number: int) -> bool:
    try:
        with socket.create_connection((address, number), timeout=5) as client:
            return client.recv(100) == b""
    except OSError:
        return True


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def ask_from_peer(peer: str, kind: str, number: int) -> str:
    """What address the container sees when the other machine asks."""
    host = peer.rpartition(".")[0] + ".1"
    command = ["ip", "netns", "exec", f"proa-peer-{os.getpid()}", sys.executable, "-c", ASK, kind, host, str(number)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def gateway(mine: Any, name: str) -> str:
    return str(mine.inspect(name)["NetworkSettings"]["Networks"]["bridge"]["Gateway"])


def kill_engine(mine: Any) -> None:
    pid = mine.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}/stat").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())


def relay_pid(mine: Any) -> int:
    return next(int(row.split()[0]) for row in mine.processes() if f"proa relay {mine.run_dir}" in row)


def send_all(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)


def test_the_container_sees_where_clients_are(mine: Any, server: Callable[..., str], peer: str) -> None:
    first, second, third = free_ports(3)
    name = server("-p", f"{first}:80", "-p", f"{second}:81", "-p", f"{third}:53/udp")
    for number in (first, second):
        assert ask_from_peer(peer, "tcp", number) == peer
    assert ask_from_peer(peer, "udp", third) == peer
    assert hear("127.0.0.1", first) == gateway(mine, name)
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.connect(("127.0.0.1", third))
        for word in (b"one", b"two"):
            client.send(word)
            assert client.recv(100).split() == [gateway(mine, name).encode(), word]
    assert listeners_of(mine.uid) == {first, second}
    rows = mine.out("port", name).splitlines()
    assert f"80/tcp -> 0.0.0.0:{first}" in rows
    assert not [row for row in json.loads(mine.out("info", "--format", "json"))["Warnings"] if "port" in row]


def test_all_bytes_arrive_in_both_directions(server: Callable[..., str], mine: Any) -> None:
    (number,) = free_ports(1)
    server("-p", f"127.0.0.1:{number}:80")
    sent = os.urandom(1 << 20) * 8
    with socket.create_connection(("127.0.0.1", number), timeout=30) as client, client.makefile("rb") as answers:
        answers.readline()
        writer = threading.Thread(target=send_all, args=(client, sent))
        writer.start()
        assert answers.read() == sent
        writer.join()


def test_loopback_of_version_6(server: Callable[..., str], mine: Any) -> None:
    (number,) = free_ports(1)
    mine.proa("network", "create", "dual", "--ipv6")
    name = server("--network", "dual", "-p", f"{number}:80", family=6)
    place = mine.inspect(name)["NetworkSettings"]["Networks"]["dual"]
    assert hear("::1", number) == place["IPv6Gateway"]
    assert hear("127.0.0.1", number) == f"::ffff:{place['Gateway']}"
    mine.proa("rm", "-f", name)
    mine.proa("network", "rm", "dual")


def test_ports_that_cannot_be_had(server: Callable[..., str], mine: Any) -> None:
    first, second = free_ports(2)
    server("-p", f"127.0.0.1:{first}:80")
    begin = "driver failed programming external connectivity on endpoint other ("

    def refusal(port: str) -> str:
        done = mine.proa("run", "--name", "other", "-p", port, "busybox", "true", check=False)
        mine.proa("rm", "-f", "other", check=False)
        assert done.returncode == 125
        text = done.stderr.decode()
        assert begin in text
        return str(text)

    assert f"Bind for 127.0.0.1:{first} failed: port is already allocated" in refusal(f"127.0.0.1:{first}:80")
    with socket.create_server(("127.0.0.1", second)):
        text = refusal(f"127.0.0.1:{second}:80")
        assert f"failed to bind host port for 127.0.0.1:{second}:" in text
        assert "address already in use" in text
    text = refusal("127.0.0.1:80:80")
    assert "permission denied" in text
    assert "net.ipv4.ip_unprivileged_port_start" in text
    assert "cannot assign requested address" in refusal(f"192.0.2.99:{second}:80")
    assert "tcp and udp only" in refusal(f"127.0.0.1:{second}:80/sctp")
    assert hear("127.0.0.1", first)


def test_ports_come_and_go_while_it_runs(server: Callable[..., str], mine: Any) -> None:
    first, second = free_ports(2)
    name = server("-p", f"127.0.0.1:{first}:80")
    with socket.create_connection(("127.0.0.1", first), timeout=10) as client:
        assert client.recv(100)
        mine.proa("update", "--publish-add", f"127.0.0.1:{second}:80", "--publish-rm", f"{first}:80", name)
        assert hear("127.0.0.1", second)
        assert refused("127.0.0.1", first)
        client.sendall(b"still here")
        assert client.recv(100) == b"still here"
    mine.proa("stop", "-t", "0", name)
    assert refused("127.0.0.1", second)
    mine.proa("start", name)
    assert mine.out("port", name).splitlines() == [f"80/tcp -> 127.0.0.1:{second}"]


def test_connections_outlive_the_engine_and_end_with_the_container(
    server: Callable[..., str], mine: Any, peer: str
) -> None:
    (number,) = free_ports(1)
    name = server("-p", f"{number}:80")
    with socket.create_connection(("127.0.0.1", number), timeout=10) as client:
        assert client.recv(100)
        kill_engine(mine)
        client.sendall(b"nobody minds")
        assert client.recv(100) == b"nobody minds"
        assert ask_from_peer(peer, "tcp", number) == peer
        mine.out("ps")
        client.sendall(b"adopted")
        assert client.recv(100) == b"adopted"
        assert ask_from_peer(peer, "tcp", number) == peer
        mine.proa("rm", "-f", name)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
    assert refused("127.0.0.1", number)


def test_a_relay_that_dies_is_replaced(server: Callable[..., str], mine: Any) -> None:
    (number,) = free_ports(1)
    server("-p", f"127.0.0.1:{number}:80")
    assert hear("127.0.0.1", number)
    old = relay_pid(mine)
    os.kill(old, signal.SIGKILL)
    assert hear("127.0.0.1", number)
    assert relay_pid(mine) != old


def test_a_port_that_was_given_up_while_no_engine_ran_is_closed(server: Callable[..., str], mine: Any) -> None:
    (number,) = free_ports(1)
    name = server("-p", f"127.0.0.1:{number}:80")
    pid = mine.inspect(name)["State"]["Pid"]
    kill_engine(mine)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the container to end")
    mine.out("ps")
    assert refused("127.0.0.1", number)
    mine.proa("rm", "-f", name)
    mine.proa("system", "stop")
    until(lambda: not mine.processes(), f"the user's processes to end: {mine.processes()}")
