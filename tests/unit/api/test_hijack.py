"""Hijacked connections: the client's socket leaves the server alive, with every byte the client sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from proa.api.messages import MULTIPLEXED_STREAM, RAW_STREAM, Hijack, Reply, Request, json_body, stream_type
from proa.api.routes import Route
from proa.errors import NotFound

Serve = Callable[..., Any]
UPGRADE = ("Connection: Upgrade", "Upgrade: tcp")


def _monitor(descriptor: int, early: bytes, greeting: bytes) -> None:
    """Stands for a container's monitor: echoes until the client closes its half, then says goodbye."""

    def work() -> None:
        with socket.socket(fileno=descriptor) as sock:
            sock.setblocking(True)
            with contextlib.suppress(ConnectionError):
                sock.sendall(greeting + early)
                while data := sock.recv(65536):
                    sock.sendall(data)
                sock.sendall(b"|bye")

    threading.Thread(target=work).start()


async def _attach(service: Any, request: Request) -> Hijack:
    if request["id"] == "nope":
        raise NotFound("No such container: nope", code="container-not-found")

    async def take(descriptor: int, early: bytes) -> None:
        _monitor(descriptor, early, b"hello|")

    return Hijack(take=take, content_type=stream_type(request.version, tty=request["id"] == "tty"))


async def _exec(service: Any, request: Request) -> Hijack | Reply:
    body = await json_body(request)
    if body.get("Detach"):
        return Reply(status=200)

    async def take(descriptor: int, early: bytes) -> None:
        if body.get("Fail"):
            os.close(descriptor)
            raise NotFound("exec failed: executable file not found in $PATH", code="command-not-found")
        _monitor(descriptor, early, repr(sorted(body)).encode() + b"|")

    return Hijack(take=take, framed=True, content_type=MULTIPLEXED_STREAM)


ROUTES = [Route("POST", "/containers/{id}/attach", _attach), Route("POST", "/exec/{id}/start", _exec)]


def _attach_request(name: str = "c", *, version: str = "", headers: tuple[str, ...] = UPGRADE) -> bytes:
    lines = [f"POST {version}/containers/{name}/attach?stdout=1&stream=1 HTTP/1.1", "Host: api.moby.localhost"]
    return "\r\n".join([*lines, "Content-Length: 0", "Content-Type: text/plain", *headers]).encode() + b"\r\n\r\n"


def _exec_request(body: bytes, headers: tuple[str, ...] = UPGRADE) -> bytes:
    lines = ["POST /v1.41/exec/e/start HTTP/1.1", "Host: x", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", *headers]).encode() + b"\r\n\r\n" + body


def test_the_head_byte_for_byte(serve: Serve) -> None:
    with serve(routes=ROUTES).client() as client:
        client.send(_attach_request("tty"))
        head = (
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n"
        )
        assert client.exactly(len(head)) == head


def test_both_directions_and_output_after_close_write(serve: Serve) -> None:
    with serve(routes=ROUTES).client() as client:
        client.send(_attach_request())
        head = client.head()
        assert (head.status, head.reason, head.headers["upgrade"]) == (101, "UPGRADED", "tcp")
        assert client.exactly(6) == b"hello|"
        client.send(b"one")
        assert client.exactly(3) == b"one"
        client.send(b"two")
        client.close_write()
        assert client.rest() == b"two|bye"


def test_close_write_right_behind_the_request(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    for _ in range(20):
        with live.client() as client:
            client.send(_attach_request())
            client.close_write()
            assert client.head().status == 101
            assert client.rest() == b"hello||bye"


@pytest.mark.parametrize("headers", [UPGRADE, ()])
def test_bytes_sent_with_the_request_are_kept(serve: Serve, headers: tuple[str, ...]) -> None:
    live = serve(routes=ROUTES)
    early = b"early\r\n\r\nGET / HTTP/1.1\r\n\r\n" + bytes(range(256))
    for wait in (0.0, 0.05):
        with live.client() as client:
            client.send(_attach_request(headers=headers) + early)
            time.sleep(wait)
            client.send(b"late")
            client.close_write()
            assert client.head().status == (101 if headers else 200)
            assert client.rest() == b"hello|" + early + b"late|bye"


def test_a_large_early_body_is_neither_lost_nor_buffered_whole(serve: Serve) -> None:
    data = os.urandom(8 << 20)
    with serve(routes=ROUTES).client() as client:
        thread = threading.Thread(target=lambda: (client.send(_attach_request() + data), client.close_write()))
        thread.start()
        assert client.head().status == 101
        assert client.rest() == b"hello|" + data + b"|bye"
        thread.join()


@pytest.mark.parametrize("cut", [0, 1, 10, 29])
def test_the_exec_body_may_come_in_pieces_and_stdin_right_behind(serve: Serve, cut: int) -> None:
    live = serve(routes=ROUTES)
    body = b'{"Detach":false,"Tty":false}\n'
    whole = _exec_request(body)
    at = len(whole) - len(body) + cut
    with live.client() as client:
        client.send(whole[:at])
        time.sleep(0.05)
        client.send(whole[at:] + b"stdin")
        client.close_write()
        assert client.head().headers["content-type"] == MULTIPLEXED_STREAM
        assert client.rest() == b"['Detach', 'Tty']|stdin|bye"


def test_the_request_split_anywhere(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    whole = _exec_request(b'{"Tty":false}') + b"x"
    for cut in range(1, len(whole)):
        with live.client() as client:
            client.send(whole[:cut])
            time.sleep(0.0005)
            client.send(whole[cut:])
            client.close_write()
            assert client.head().status == 101
            assert client.rest() == b"['Tty']|x|bye"


def test_output_does_not_come_together_with_the_head(serve: Serve) -> None:
    """docker-py loses what its buffered reader gets with the head."""
    live = serve(routes=ROUTES)
    for _ in range(20):
        with live.client() as client:
            client.send(_attach_request())
            time.sleep(0.01)  # a client that is slow to read
            assert client.socket.recv(65536).endswith(b"\r\n\r\n")
            assert client.exactly(6) == b"hello|"


def test_a_chunked_exec_body(serve: Serve) -> None:
    with serve(routes=ROUTES).client() as client:
        head = _exec_request(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        client.send(head + b'd\r\n{"Tty":false}\r\n0\r\n\r\n')
        assert client.head().status == 101
        client.send(b"after")
        client.close_write()
        assert client.rest() == b"['Tty']|after|bye"


def test_without_upgrade_headers_it_is_a_200_and_raw_all_the_same(serve: Serve) -> None:
    with serve(routes=ROUTES).client() as client:
        client.send(_attach_request("tty", headers=()))
        head = client.head()
        assert (head.status, head.reason, head.headers["content-type"]) == (200, "OK", RAW_STREAM)
        assert "transfer-encoding" not in head.headers
        assert "upgrade" not in head.headers
        client.close_write()
        assert client.rest() == b"hello||bye"


@pytest.mark.parametrize(
    ("version", "name", "kind"), [("", "c", MULTIPLEXED_STREAM), ("", "tty", RAW_STREAM), ("/v1.41", "c", RAW_STREAM)]
)
def test_content_types(serve: Serve, version: str, name: str, kind: str) -> None:
    with serve(routes=ROUTES).client() as client:
        client.send(_attach_request(name, version=version))
        assert client.head().headers["content-type"] == kind


def test_an_error_before_the_head_is_ordinary(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    with live.client() as client:
        client.send(_attach_request("nope"))
        answer = client.answer()
        assert (answer.status, answer.message) == (404, "No such container: nope")
        assert client.rest() == b""
    with live.client() as client:  # without an upgrade, the connection goes on as HTTP
        client.send(_attach_request("nope", headers=()) + b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.answer().status == 404
        assert client.answer().body == b"OK"


def test_an_error_before_the_body_keeps_the_connection(serve: Serve) -> None:
    """What is refused by its head is answered while the body is on its way: the next request is no container's."""
    refused, body = _exec_request(b"{}", ()).replace(b"/exec/e/", b"/exec/%01/"), b"{}"
    with serve(routes=ROUTES).client() as client:
        client.send(refused.removesuffix(body))
        assert client.answer().status == 400
        client.send(body)
        time.sleep(0.05)
        client.send(_exec_request(b'{"Detach": true}', ()))
        assert client.answer().status == 200


def test_a_detached_exec_keeps_the_connection(serve: Serve) -> None:
    with serve(routes=ROUTES).client() as client:
        for _ in range(3):
            client.send(_exec_request(b'{"Detach":true}', headers=()))
            assert client.answer().status == 200
        assert client.ask("GET", "/_ping").body == b"OK"


def test_an_error_after_the_head_goes_into_the_stream(serve: Serve) -> None:
    with serve(routes=ROUTES).client() as client:
        client.send(_exec_request(b'{"Fail":true}'))
        assert client.head().status == 101
        line = b"exec failed: executable file not found in $PATH\r\n"
        assert client.rest() == b"\x01\0\0\0" + len(line).to_bytes(4, "big") + line


def test_a_takeover_that_is_refused_for_lack_of_threads_leaks_nothing(serve: Serve) -> None:
    async def attach(service: Any, request: Request) -> Hijack:
        async def take(descriptor: int, early: bytes) -> None:
            await service.pools.change(os.close, descriptor)

        return Hijack(take=take)

    live = serve(routes=[Route("POST", "/containers/{id}/attach", attach)])
    live.service.pools._waiting = 10_000
    before = live.descriptors()
    for _ in range(10):
        with live.client() as client:
            client.send(_attach_request())
            client.head()
            assert b"busy" in client.rest()
    for _ in range(100):
        if live.descriptors() <= before:
            break
        time.sleep(0.02)
    assert live.descriptors() <= before


def test_an_upgrade_elsewhere_is_declined(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    for upgrade in ("h2c", "websocket", "tcp"):
        with live.client() as client:
            answer = client.ask("GET", "/version", headers=["Connection: Upgrade", f"Upgrade: {upgrade}"])
            assert answer.status == 200
            assert client.rest() == b""
        with live.client() as client:
            assert client.ask("POST", "/grpc", headers=["Connection: Upgrade", f"Upgrade: {upgrade}"]).status == 404


def test_a_client_gone_before_the_takeover_harms_nothing(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    before = live.descriptors()
    for _ in range(50):
        with live.client() as client:
            client.send(_attach_request())
    for _ in range(100):
        if live.descriptors() <= before + 1:
            break
        time.sleep(0.02)
    assert live.descriptors() <= before + 1
    assert live.ask("GET", "/_ping").status == 200


def test_four_hundred_hijacks_leave_nothing(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    assert live.ask("GET", "/_ping").status == 200
    before = live.descriptors()
    for _ in range(4):
        clients = [live.client() for _ in range(100)]
        for client in clients:
            client.send(_attach_request())
        for client in clients:
            assert client.head().status == 101
            client.close_write()
        for client in clients:
            assert client.rest() == b"hello||bye"
            client.socket.close()
    for _ in range(100):
        if live.descriptors() <= before and not live.call(lambda: live.server.connected):
            break
        time.sleep(0.02)
    assert live.descriptors() <= before
    assert live.call(lambda: live.server.connected) == 0
    assert live.call(lambda: len(asyncio.all_tasks())) <= 3


def test_the_server_holds_no_part_of_the_connection(serve: Serve) -> None:
    """With the monitor's descriptor closed the client sees the end: ours is closed, and was not shut down before."""
    held: list[int] = []

    async def attach(service: Any, request: Request) -> Hijack:
        async def take(descriptor: int, early: bytes) -> None:
            held.append(descriptor)

        return Hijack(take=take)

    live = serve(routes=[Route("POST", "/containers/{id}/attach", attach)])
    with live.client() as client:
        client.send(_attach_request())
        assert client.head().status == 101
        while live.call(lambda: len(live.server.connections)):
            time.sleep(0.01)
        poll = select.poll()
        poll.register(client.socket, select.POLLIN | select.POLLRDHUP)
        assert poll.poll(100) == []  # nothing: no data, no end
        assert not os.get_inheritable(held[0])
        os.write(held[0], b"x")
        assert client.exactly(1) == b"x"
        os.close(held[0])
        assert client.rest() == b""
