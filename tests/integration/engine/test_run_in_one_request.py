"""`POST /proa/v1/containers/{id}/run`: the wait and the start of a container in one."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from engines import PrivateEngine, until

import proa
from proa.errors import NotFound

pytestmark = pytest.mark.root


def ask(box: PrivateEngine, container: str, query: str = "") -> tuple[int, dict[str, Any]]:
    """The status of the reply, and its only line."""
    sock = begin(box, container, query)
    data = b""
    while piece := sock.recv(65536):
        data += piece
    sock.close()
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" in head:
        body = b"".join(body.split(b"\r\n")[1::2])
    return int(head.split()[1]), json.loads(body)


def begin(box: PrivateEngine, container: str, query: str = "") -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(str(box.run_dir / "engine.sock"))
    target = f"/proa/v1/containers/{container}/run{query}"
    sock.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    return sock


def status_of(box: PrivateEngine, container: str) -> str:
    shown: bytes = box.proa("inspect", "--format", "{{.State.Status}}", container).stdout
    return shown.decode().strip()


def test_it_starts_and_tells_the_end(box: PrivateEngine) -> None:
    box.proa("create", "--name", "one", "--network", "none", "busybox", "sh", "-c", "exit 7")
    assert ask(box, "one") == (200, {"StatusCode": 7})
    assert status_of(box, "one") == "exited"
    assert ask(box, "one") == (200, {"StatusCode": 7}), "the wait is for the next end"


def test_removal_is_waited_for(box: PrivateEngine) -> None:
    box.proa("create", "--rm", "--name", "one", "--network", "none", "busybox", "false")
    assert ask(box, "one", "?condition=removed") == (200, {"StatusCode": 1})
    assert box.proa("ps", "-aq").stdout == b""


def test_a_start_that_fails_is_the_last_line(box: PrivateEngine) -> None:
    box.proa("create", "--name", "one", "--network", "none", "busybox", "not-there")
    status, told = ask(box, "one")
    assert status == 200
    assert "not-there" in told["error"]
    assert (told["errorDetail"]["code"], told["errorDetail"]["status"]) == ("command-not-found", 400)


def test_what_cannot_begin_is_refused_at_once(box: PrivateEngine) -> None:
    assert ask(box, "none")[0] == 404
    box.proa("create", "--name", "one", "--network", "none", "busybox", "true")
    assert ask(box, "one", "?condition=never")[0] == 400
    assert status_of(box, "one") == "created"


def test_one_that_runs_is_waited_for_and_outlives_its_client(box: PrivateEngine) -> None:
    box.proa("create", "--name", "one", "--network", "none", "busybox", "sleep", "1000")
    first = begin(box, "one")
    until(lambda: status_of(box, "one") == "running")
    second = begin(box, "one")
    assert b" 200 " in second.recv(65536)
    first.close()
    assert status_of(box, "one") == "running"
    box.proa("kill", "one")
    assert b'"StatusCode":137' in b"".join(iter(lambda: second.recv(65536), b""))
    second.close()


def test_the_sdk_runs_by_it(box: PrivateEngine) -> None:
    with proa.connect(f"unix://{box.run_dir}/engine.sock") as engine:
        ended = engine.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2; exit 3"], network="none")
        assert (ended.exit_code, ended.stdout, ended.stderr) == (3, b"out\n", b"err\n")
        with pytest.raises(NotFound) as caught:
            engine.containers.run("busybox", ["not-there"], network="none")
        assert caught.value.code == "command-not-found"
        many = engine.containers.run("busybox", ["sh", "-c", "head -c 3000000 /dev/zero"], network="none")
        assert len(many.stdout) == 3_000_000
        fed = engine.containers.run("busybox", ["cat"], input=b"in", network="none")
        assert fed.stdout == b"in"
    assert box.proa("ps", "-aq").stdout == b""
