"""Attached clients of real containers: stdin, many clients, slow ones, terminals."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest
from monitorlab import Lab, receive_all, receive_until, unframe, wait_exit, wait_until

from proa.errors import Conflict, ProaError
from proa.monitor.protocol import Attach

pytestmark = pytest.mark.root


def test_stdin_sent_before_the_start_is_kept(lab: Lab) -> None:
    ours, theirs = lab.pair()
    ours.sendall(b"typed ahead\n")
    ours.shutdown(socket.SHUT_WR)
    with theirs:
        request = lab.request("cat", stdin=True, stdin_once=True, attach=[{"stdin": True}])
        connection = lab.submit(request, {"attach": [theirs.fileno()]})
    assert unframe(receive_all(ours)) == {1: b"typed ahead\n"}
    assert wait_exit(connection)["status"] == 0


def test_fifty_megabytes_in_and_out_are_unchanged(lab: Lab) -> None:
    connection, client = lab.start_attached(
        "cat", how=Attach(stdin=True), stdin=True, stdin_once=True, log={"driver": "none"}
    )
    block = os.urandom(1 << 20)

    def send() -> None:
        for _ in range(50):
            client.sendall(block)
        client.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    data = receive_all(client)
    sender.join()
    assert wait_exit(connection)["status"] == 0
    digest = hashlib.sha256(unframe(data)[1]).digest()
    assert digest == hashlib.sha256(block * 50).digest()


def test_attach_to_a_running_container_and_half_close(lab: Lab) -> None:
    connection = lab.start("sh", "-c", "read x; echo got $x", stdin=True)
    watcher = lab.attach(connection)
    watcher.shutdown(socket.SHUT_WR)  # what the docker CLI does at once
    typist = lab.attach(connection, Attach(streams=(), stdin=True))
    typist.sendall(b"word\n")
    assert unframe(receive_all(watcher)) == {1: b"got word\n"}
    assert receive_all(typist) == b""
    assert wait_exit(connection)["status"] == 0


def test_every_client_gets_everything(lab: Lab) -> None:
    connection = lab.start("sh", "-c", "read x; seq 1 20000", stdin=True)
    clients = [lab.attach(connection) for _ in range(5)]
    starter = lab.attach(connection, Attach(streams=(), stdin=True))
    starter.sendall(b"\n")
    expected = "".join(f"{n}\n" for n in range(1, 20001)).encode()
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda c=c: results.append(receive_all(c))) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [unframe(data)[1] for data in results] == [expected] * 5
    wait_exit(connection)


def test_a_stuck_client_does_not_keep_the_exit_from_the_engine(lab: Lab) -> None:
    connection, stuck = lab.start_attached("sh", "-c", "yes | head -c 3000000; exit 4")
    time.sleep(0.2)
    assert connection.state()["status"] == "running"  # it waits for its reader, as with Docker
    read = stuck.recv(1 << 20)
    while len(read) < 2_500_000:
        read += stuck.recv(1 << 20)
    event = wait_exit(connection)
    assert event["status"] == 4
    rest = receive_all(stuck)
    assert len(unframe(read + rest)[1]) == 3_000_000


def test_a_client_that_goes_away_frees_the_container(lab: Lab) -> None:
    connection, stuck = lab.start_attached("sh", "-c", "yes | head -c 3000000; exit 4", log={"driver": "none"})
    time.sleep(0.1)
    stuck.close()
    assert wait_exit(connection)["status"] == 4


def test_attach_and_drop_leaks_nothing(lab: Lab) -> None:
    connection = lab.start("sleep", "60", stdin=True)
    monitor = connection.state()["monitor"]["pid"]
    lab.attach(connection, Attach(stdin=True)).close()

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{monitor}/fd"))

    wait_until(lambda: connection.state()["status"] == "running")
    before, memory = descriptors(), resident_kib(monitor)
    for _ in range(200):
        lab.attach(connection, Attach(stdin=True)).close()
    wait_until(lambda: descriptors() <= before)
    assert resident_kib(monitor) < memory + 500
    assert connection.state()["status"] == "running"


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty"):
            return int(line.split()[1])
    raise AssertionError


def test_a_terminal_echoes_and_resizes(lab: Lab) -> None:
    connection, client = lab.start_attached("sh", tty=True, how=Attach(stdin=True), stdin=True)
    connection.resize(33, 120)
    client.sendall(b"stty size\n")
    assert b"33 120" in receive_until(client, b"33 120\r\n")
    client.sendall(b"tty; exit 5\n")
    assert b"/dev/" in receive_all(client)
    assert wait_exit(connection)["status"] == 5
    assert {stream for stream, _ in lab.log(connection)} == {"stdout"}


def test_detach_keys_leave_the_container_running(lab: Lab) -> None:
    connection, client = lab.start_attached("sh", tty=True, how=Attach(stdin=True), stdin=True)
    client.sendall(b"echo one\n")
    receive_until(client, b"one\r\n")
    client.sendall(b"\x10\x11")
    receive_all(client)
    event = connection.next_event(5)
    assert event is not None
    assert event["event"] == "detached"
    again = lab.attach(connection, Attach(stdin=True))
    again.sendall(b"echo two\n")
    receive_until(again, b"two\r\n")
    again.sendall(b"exit\n")
    assert wait_exit(connection)["status"] == 0


def test_resize_without_a_terminal_is_a_conflict(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    with pytest.raises(Conflict, match="no terminal"):
        connection.resize(1, 1)


def test_a_descriptor_that_is_no_socket_is_refused(lab: Lab) -> None:
    connection = lab.start("sleep", "60")
    read_end, write_end = os.pipe()
    with pytest.raises(ProaError):
        connection.attach(read_end)
    os.close(read_end)
    os.close(write_end)
    assert connection.state()["status"] == "running"
    (lab.directory / "nursery.log").write_text("")


def test_logs_rotate_while_clients_watch(lab: Lab) -> None:
    connection, client = lab.start_attached(
        "seq", "1", "5000", log={"driver": "json-file", "max_size": 20_000, "max_file": 2}
    )
    assert unframe(receive_all(client))[1].count(b"\n") == 5000
    wait_exit(connection)
    directory = lab.container_directory(connection)
    name = f"{directory.name}-json.log"
    names = sorted(p.name for p in directory.iterdir())
    assert names[0] == name
    assert re.fullmatch(re.escape(name) + r"\.\d+\.gz", names[1])
    assert names[2:] == ["exit.json"]
    assert lab.log(connection)[-1] == ("stdout", "5000\n")
