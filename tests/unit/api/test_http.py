"""HTTP as Docker's clients speak it, and as nobody should."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from proa.api import connection as connection_module
from proa.api.messages import Reply, Request, json_body
from proa.api.routes import Route
from proa.errors import NotModified

Serve = Callable[..., Any]


async def _echo(service: Any, request: Request) -> Reply:
    return Reply(value={"method": request.method, "body": (await request.body.read(1 << 20)).decode("latin-1")})


async def _length(service: Any, request: Request) -> Reply:
    total = 0
    async for chunk in request.body.chunks():
        total += len(chunk)
    return Reply(value=total)


async def _json(service: Any, request: Request) -> Reply:
    return Reply(value=await json_body(request))


async def _broken(service: Any, request: Request) -> Reply:
    raise ZeroDivisionError("secret detail")


async def _same(service: Any, request: Request) -> Reply:
    raise NotModified("already so")


async def _slow(service: Any, request: Request) -> Reply:
    await asyncio.sleep(0.3)
    return Reply(value="late")


async def _headers(service: Any, request: Request) -> Reply:
    return Reply(value=dict(request.headers))


async def _block(service: Any, request: Request) -> Reply:
    await service.pools.quick(time.sleep, 0.5)
    return Reply(value="done")


ROUTES = [
    Route("POST", "/t/echo", _echo),
    Route("GET", "/t/echo", _echo),
    Route("POST", "/t/length", _length),
    Route("POST", "/t/json", _json),
    Route("GET", "/t/broken", _broken),
    Route("POST", "/t/same", _same),
    Route("GET", "/t/slow", _slow),
    Route("GET", "/t/headers", _headers),
    Route("GET", "/t/block", _block),
]
every_door = pytest.mark.parametrize("door", ["own", "scoped", "tls"], indirect=True)
EVERYWHERE = ("api-version", "ostype", "server", "docker-experimental", "builder-version")


def test_ping(serve: Serve) -> None:
    live = serve()
    for method in ("GET", "HEAD"):
        for prefix in ("", "/v1.24", "/v1.51"):
            answer = live.ask(method, f"{prefix}/_ping")
            assert answer.status == 200
            assert answer.body == (b"OK" if method == "GET" else b"")
            assert answer.headers["content-length"] == "2"
            assert answer.headers["api-version"] == "1.51"
            assert answer.headers["ostype"] == "linux"
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.headers["cache-control"] == "no-cache, no-store, must-revalidate"


def test_every_response_carries_the_headers_clients_negotiate_by(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    for method, target in [
        ("GET", "/nope"),
        ("GET", "/v9.9/info"),
        ("GET", "/t/broken"),
        ("POST", "/t/same"),
        ("GET", "/version"),
    ]:
        answer = live.ask(method, target)
        for name in EVERYWHERE:
            assert name in answer.headers, (target, name)


def test_version_and_errors_are_json(serve: Serve) -> None:
    live = serve()
    answer = live.ask("GET", "/v1.44/version")
    assert (answer.status, answer.json["ApiVersion"], answer.json["MinAPIVersion"]) == (200, "1.51", "1.24")
    answer = live.ask("GET", "/nope")
    assert (answer.status, answer.message, answer.json["code"]) == (404, "page not found", "page-not-found")
    answer = live.ask("GET", "/v1.99/version")
    assert (answer.status, answer.message) == (
        400,
        "client version 1.99 is too new. Maximum supported API version is 1.51",
    )
    assert live.ask("POST", "/build").status == 501


@every_door
def test_keep_alive_and_pipelining(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    with live.client() as client:
        for i in range(50):
            assert client.ask("POST", "/t/echo", str(i).encode()).json["body"] == str(i)
        one = b"POST /t/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
        client.send(one + b"a" + one + b"b" + b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [client.answer().json["body"], client.answer().json["body"], client.answer().body] == ["a", "b", b"OK"]


@every_door
def test_a_request_split_anywhere_is_one_request(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    data = b"POST /t/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    for cut in range(1, len(data)):
        with live.client() as client:
            client.send(data[:cut])
            time.sleep(0.0005)
            client.send(data[cut:])
            assert client.answer().json["body"] == "hello"


@every_door
def test_a_client_that_shuts_down_its_half_is_answered(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    for target in ("/_ping", "/t/slow"):
        with live.client() as client:
            client.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            client.close_write()
            assert client.answer().status == 200
            assert client.rest() == b""  # and then the server closes


def test_a_defect_is_a_500_and_the_process_lives(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    live = serve(routes=ROUTES)
    with caplog.at_level(logging.ERROR), live.client() as client:
        answer = client.ask("GET", "/t/broken")
        assert (answer.status, answer.message) == (500, "internal error: ZeroDivisionError")
        assert client.ask("GET", "/_ping").status == 200  # even on the same connection
    assert any("secret detail" in record.getMessage() and record.exc_info for record in caplog.records)


def test_not_modified_has_no_body(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    with live.client() as client:
        assert client.ask("POST", "/t/same").status == 304
        assert client.ask("GET", "/_ping").status == 200


@every_door
def test_expect_continue(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    with live.client() as client:
        client.send(b"POST /t/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert client.head().status == 100
        client.send(b"ok")
        assert client.answer().json["body"] == "ok"


@every_door
def test_chunked_bodies_of_any_size_stream_through(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    with live.client() as client:
        client.send(b"POST /t/length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"x" * 65536
        for _ in range(320):
            client.send(b"10000\r\n" + piece + b"\r\n")
        client.send(b"0\r\n\r\n")
        assert client.answer().json == 320 * 65536
        assert client.ask("GET", "/_ping").status == 200


def test_a_body_with_a_length_streams_through(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    with live.client() as client:
        client.send(b"POST /t/length HTTP/1.1\r\nHost: x\r\nContent-Length: 20971520\r\n\r\n")
        for _ in range(320):
            client.send(b"\r\n\r\n" + b"x" * 65532)
        assert client.answer().json == 20971520
        assert client.ask("GET", "/_ping").status == 200


@every_door
def test_body_budgets(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    answer = live.ask("POST", "/t/echo", headers=["Content-Length: 99999999"][:0], body=b"x" * (1 << 20))
    assert answer.status == 200
    with live.client() as client:  # refused by its length, before it is sent
        client.send(b"POST /t/json HTTP/1.1\r\nHost: x\r\nContent-Length: 1099511627776\r\n\r\n")
        answer = client.head()
        assert answer.status == 413
    with live.client() as client:  # refused when too much came
        client.send(b"POST /t/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(20):
                client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        except OSError:
            pass
        assert client.head().status == 413


@every_door
def test_a_body_that_ends_early_is_refused(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    live = serve(routes=ROUTES)
    with live.client() as client:
        client.send(b"POST /t/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        client.close_write()
        assert client.answer().status == 400
    for head in (b"Content-Length: 10", b"Transfer-Encoding: chunked"):
        with live.client() as client:
            client.send(b"POST /t/echo HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n3\r\nabc")
    deadline = time.monotonic() + 5
    while live.call(lambda: live.server.in_flight):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert live.ask("GET", "/_ping").status == 200
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


@every_door
def test_deep_json_is_refused_quickly(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    body = b'{"a":' * 200_000 + b"1" + b"}" * 200_000
    began = time.monotonic()
    answer = live.ask("POST", "/t/json", body)
    assert answer.status == 400
    assert time.monotonic() - began < 2
    assert live.ask("POST", "/t/json", b'{"a":1}').json == {"a": 1}


BAD = {
    "two lengths": b"POST /t/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length and chunked": b"POST /t/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad length": b"POST /t/echo HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
    "two hosts": b"GET /_ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no host": b"GET /_ping HTTP/1.1\r\n\r\n",
    "host with a path": b"GET /_ping HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "host with a question": b"GET /_ping HTTP/1.1\r\nHost: a?b\r\n\r\n",
    "obs-fold": b"GET /_ping HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "bare line feeds": b"GET /_ping HTTP/1.1\nHost: x\n\n",
    "space before colon": b"GET /_ping HTTP/1.1\r\nHost : x\r\n\r\n",
    "control in header": b"GET /_ping HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    "unknown method": b"G@T /_ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "no http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "giant header": b"GET /_ping HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200_000 + b"\r\n\r\n",
    "giant target": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "10,000 headers": b"GET /_ping HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
    "bad chunk": b"POST /t/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "transfer-encoding twice": b"POST /t/echo HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
    "dots": b"GET /containers/../_ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "encoded dots": b"GET /containers/%2e%2e/_ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL": b"GET /_ping%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "overlong": b"GET /%c0%ae%c0%ae/_ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute form": b"GET http://x/_ping HTTP/1.1\r\nHost: x\r\n\r\n",
}


@every_door
@pytest.mark.parametrize("name", BAD)
def test_bad_http_is_a_400_in_json(serve: Serve, name: str) -> None:
    live = serve(routes=ROUTES)
    began = time.monotonic()
    with live.client() as client:
        try:
            client.send(BAD[name])
        except OSError:
            pass
        answer = client.answer()
        assert answer.status == 400, answer.body
        assert answer.message
        assert "Traceback" not in answer.message
        assert answer.headers["api-version"] == "1.51"
        assert answer.headers["server"].startswith("proa/")
    assert live.ask("GET", "/_ping").status == 200
    assert time.monotonic() - began < 2


@every_door
def test_many_tiny_chunks_and_extensions_cost_little(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    with live.client() as client:
        began = time.process_time()
        client.send(b"POST /t/length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            client.send(b"1;a=b\r\nx\r\n" * 100_000 + b"0\r\n\r\n")
        except OSError:
            pass
        answer = client.answer()
        assert answer.status in (200, 400)
        assert time.process_time() - began < 5


@every_door
def test_half_a_head_does_not_stay(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_SECONDS", 0.2)
    live = serve()
    with live.client() as client:
        client.send(b"GET /_ping HTTP/1.1\r\nHo")
        began = time.monotonic()
        assert client.rest() == b""
        assert time.monotonic() - began < 2
    with live.client() as client:  # but one that goes on is served, however often it pauses between requests
        for _ in range(3):
            client.send(b"GET /_ping HTTP/1.1\r\n")
            time.sleep(0.05)
            client.send(b"Host: x\r\n\r\n")
            assert client.answer().status == 200
            time.sleep(0.3)


@every_door
def test_slow_calls_do_not_hold_up_quick_ones(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    clients = [live.client() for _ in range(30)]
    for client in clients:
        client.send(b"GET /t/block HTTP/1.1\r\nHost: x\r\n\r\n")
    began = time.monotonic()
    assert live.ask("GET", "/_ping").status == 200
    assert time.monotonic() - began < 0.25
    for client in clients:
        assert client.answer().status == 200
        client.socket.close()


@every_door
def test_a_large_body_does_not_hold_up_the_loop(serve: Serve) -> None:
    live = serve(routes=ROUTES)
    lags: list[float] = []

    async def beat() -> None:
        clock = asyncio.get_running_loop().time
        while True:
            before = clock()
            await asyncio.sleep(0.01)
            lags.append(clock() - before - 0.01)

    beating = asyncio.run_coroutine_threadsafe(beat(), live.loop)
    body = b'{"a":[' + b'"' + b"x" * 3_900_000 + b'"' + b"]}"
    assert live.ask("POST", "/t/json", body).status == 200
    beating.cancel()
    assert max(lags) < 0.25


def test_too_many_connections_are_told_so(serve: Serve) -> None:
    live = serve()
    live.server.max_connections = 5
    clients = [live.client() for _ in range(8)]
    for client in clients[:5]:
        assert client.ask("GET", "/_ping").status == 200
    for client in clients[5:]:
        answer = client.answer()  # at once, without having asked
        assert (answer.status, answer.json["code"]) == (503, "engine-busy")
        assert client.rest() == b""
    for client in clients:
        client.socket.close()
    time.sleep(0.1)
    assert live.ask("GET", "/_ping").status == 200


def test_accepting_rests_while_descriptors_are_out(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    live = serve()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = live.client()
    assert client.ask("GET", "/_ping").status == 200
    late = socket.socket(socket.AF_UNIX)
    late.settimeout(10)
    resource.setrlimit(resource.RLIMIT_NOFILE, (live.descriptors() - 1, hard))
    try:
        late.connect(live.path)
        time.sleep(0.2)
        assert client.ask("GET", "/_ping").status == 200  # who is connected is served
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    late.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
    assert late.recv(15) == b"HTTP/1.1 200 OK"
    late.close()
    client.socket.close()
    assert 1 <= len([r for r in caplog.records if "cannot accept" in r.getMessage()]) <= 3


def test_headers_arrive_in_lower_case(serve: Serve) -> None:
    answer = serve(routes=ROUTES).ask("GET", "/t/headers", headers=["X-Registry-Auth: e30="])
    assert answer.json["x-registry-auth"] == "e30="


def test_status_and_stop(serve: Serve) -> None:
    from proa.engine.events import Events

    live = serve(SimpleNamespace(events=Events(), root="/r", run="/d", busy=False))
    answer = live.ask("GET", "/proa/v1/status")
    assert (answer.json["Root"], answer.json["Busy"]) == ("/r", False)
    assert live.ask("POST", "/proa/v1/stop").status == 202
    assert live.stopped.wait(5)
