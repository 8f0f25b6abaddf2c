"""`POST /proa/v1/containers/run`: the whole life of a container in one request."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest
from engines import PrivateEngine, kill_and_wait, until

import proa
from proa.client.frames import SYSTEM_ERROR, Demultiplexer
from proa.errors import NotFound

pytestmark = pytest.mark.root


def begin(box: PrivateEngine, *command: str, query: str = "", **host: Any) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(str(box.run_dir / "engine.sock"))
    document = {"Image": "busybox", "Cmd": command, "HostConfig": {"NetworkMode": "none", **host}}
    body = json.dumps(document).encode()
    head = f"POST /proa/v1/containers/run{query} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    sock.sendall(head.encode() + body)
    return sock


def end(sock: socket.socket) -> tuple[int, dict[int, bytes], int | None]:
    """The status of the reply, what came by number of stream, and the exit status."""
    data = b"".join(iter(lambda: sock.recv(65536), b""))
    sock.close()
    head, _, body = data.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if status != 101:
        return status, {SYSTEM_ERROR: body}, None
    demultiplexer = Demultiplexer()
    streams: dict[int, bytes] = {}
    for number, piece in demultiplexer.feed(body):
        streams[number] = streams.get(number, b"") + piece
    return status, streams, demultiplexer.exit_status


def status_of(box: PrivateEngine, container: str) -> str:
    shown: bytes = box.proa("inspect", "--format", "{{.State.Status}}", container).stdout
    return shown.decode().strip()


def test_it_tells_output_and_end(box: PrivateEngine) -> None:
    sock = begin(box, "sh", "-c", "echo out; echo err >&2; exit 7", query="?name=one")
    assert end(sock) == (101, {1: b"out\n", 2: b"err\n"}, 7)
    assert status_of(box, "one") == "exited"
    assert box.proa("logs", "one").stdout == b"out\n"
    assert box.actions("one") == ["create", "attach", "start", "die"]


def test_removal_is_waited_for(box: PrivateEngine) -> None:
    assert end(begin(box, "false", AutoRemove=True)) == (101, {}, 1)
    assert box.proa("ps", "-aq").stdout == b""


@pytest.mark.parametrize("remove", [False, True])
def test_a_start_that_fails_is_the_last_frame(box: PrivateEngine, remove: bool) -> None:
    status, streams, code = end(begin(box, "not-there", AutoRemove=remove))
    assert (status, code) == (101, None)
    told = json.loads(streams.pop(SYSTEM_ERROR))
    assert not streams
    assert "not-there" in told["error"]
    assert (told["errorDetail"]["code"], told["errorDetail"]["status"]) == ("command-not-found", 400)
    assert len(box.containers()) == (0 if remove else 1)


def test_what_cannot_be_created_is_refused(box: PrivateEngine) -> None:
    assert end(begin(box, "true", query="?name=-"))[0] == 400
    box.proa("create", "--name", "one", "--network", "none", "busybox", "true")
    assert end(begin(box, "true", query="?name=one"))[0] == 409
    assert end(begin(box, "true", query="?platform=plan9/386"))[0] in (400, 404)
    assert len(box.containers()) == 1


def test_the_container_outlives_its_client(box: PrivateEngine) -> None:
    sock = begin(box, "sleep", "1000", query="?name=one")
    until(lambda: b"one" in box.proa("ps", "--format", "{{.Names}}").stdout, "its start")
    sock.close()
    assert status_of(box, "one") == "running"
    box.proa("kill", "one")
    until(lambda: status_of(box, "one") == "exited", "its end")


def test_a_monitor_that_dies(box: PrivateEngine) -> None:
    sock = begin(box, "sleep", "1000", query="?name=one")
    until(lambda: b"one" in box.proa("ps", "--format", "{{.Names}}").stdout, "its start")
    kill_and_wait(box.monitor_pid("one"))
    assert end(sock) == (101, {}, 137)


def test_a_slow_reader_gets_everything_and_then_the_end(box: PrivateEngine) -> None:
    sock = begin(box, "head", "-c", "3000000", "/dev/zero", AutoRemove=True)
    time.sleep(0.3)  # the output fills the socket, the process waits
    status, streams, code = end(sock)
    assert (status, len(streams[1]), code) == (101, 3_000_000, 0)


def test_the_sdk_runs_by_it(box: PrivateEngine) -> None:
    with proa.connect(f"unix://{box.run_dir}/engine.sock") as engine:
        ended = engine.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2; exit 3"], network="none")
        assert (ended.exit_code, ended.stdout, ended.stderr) == (3, b"out\n", b"err\n")
        with pytest.raises(NotFound) as caught:
            engine.containers.run("busybox", ["not-there"], network="none")
        assert caught.value.code == "command-not-found"
        many = engine.containers.run("busybox", ["sh", "-c", "head -c 3000000 /dev/zero"], network="none")
        assert len(many.stdout) == 3_000_000
        on_terminal = engine.containers.run("busybox", ["tty"], tty=True, network="none")
        assert on_terminal.stdout == b"/dev/pts/0\r\n"
        kept = engine.containers.run("busybox", ["true"], name="kept", auto_remove=False, network="none")
        assert kept.exit_code == 0
        engine.containers.get("kept").remove()
        fed = engine.containers.run("busybox", ["cat"], input=b"in", network="none")
        assert fed.stdout == b"in"
    assert box.proa("ps", "-aq").stdout == b""
