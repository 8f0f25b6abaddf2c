"""Streams: the head goes out at once, endless ones end with their client, idle ones cost little."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from proa.api.messages import Request, Stream
from proa.api.operations.transfer_streams import download
from proa.api.routes import Route
from proa.engine.events import Events
from proa.engine.types import Event, ExitStatus
from proa.errors import Invalid, NotFound

Serve = Callable[..., Any]


async def _ticks(service: Any, request: Request) -> Stream:
    async def chunks() -> AsyncIterator[bytes]:
        try:
            for i in range(int(request["count"])):
                yield f"{i}\n".encode()
                await asyncio.sleep(0.05)
        finally:
            service.engine.ended.append(request.path)

    return Stream(chunks=chunks(), endless=request["kind"] == "endless")


async def _torn(service: Any, request: Request) -> Stream:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"some"
        raise Invalid("broken in the middle")

    return Stream(chunks=chunks())


async def _download(service: Any, request: Request) -> Stream:
    def produce(out: Any) -> None:
        if request["kind"] == "fail":
            raise NotFound("No such image: x")
        for _ in range(1000):
            out.write(b"y" * 65536)
        if request["kind"] == "torn":
            raise Invalid("broken at the end")
        service.engine.ended.append("all written")

    return await download(service, produce, content_type="application/x-tar")


ROUTES = [
    Route("GET", "/t/{kind}/{count}", _ticks),
    Route("GET", "/torn", _torn),
    Route("GET", "/download/{kind}", _download),
]


@pytest.fixture
def live(serve: Serve) -> Any:
    return serve(SimpleNamespace(events=Events(), ended=[]), ROUTES)


def _until(condition: Callable[[], object], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_wait_sends_its_head_before_its_body(serve: Serve) -> None:
    future: Future[ExitStatus] = Future()
    asked: list[str] = []

    def wait(name: str, condition: str) -> Future[ExitStatus]:
        asked.append(f"{name} {condition}")
        if name == "nope":
            raise NotFound("No such container: nope")
        return future

    live = serve(SimpleNamespace(events=Events(), lifecycle=SimpleNamespace(wait=wait)))
    with live.client() as client:
        client.send(b"POST /v1.50/containers/c/wait?condition=removed HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        head = client.head()  # this is what the CLI waits for before it starts the container
        assert (head.status, head.headers["content-type"]) == (200, "application/json")
        future.set_result(ExitStatus(status_code=3))
        assert client.chunk() == b'{"StatusCode":3}\n'
        assert client.chunk() == b""
        assert client.ask("GET", "/_ping").status == 200
    assert asked == ["c removed"]
    assert live.ask("POST", "/containers/nope/wait").status == 404
    assert live.ask("POST", "/containers/c/wait?condition=zz").status == 400


def test_a_wait_whose_client_left_is_given_up(serve: Serve) -> None:
    future: Future[ExitStatus] = Future()
    live = serve(SimpleNamespace(events=Events(), lifecycle=SimpleNamespace(wait=lambda *_: future)))
    with live.client() as client:
        client.send(b"POST /containers/c/wait HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        client.head()
    _until(future.cancelled)


def test_events_come_as_they_happen_and_are_filtered(live: Any) -> None:
    events: Events = live.engine.events
    with live.client() as client:
        client.send(b'GET /events?filters={"type":["container"],"label":["a=b"]} HTTP/1.1\r\nHost: x\r\n\r\n')
        assert client.head().status == 200
        _until(lambda: events._sinks)
        events.publish("image", "pull", "x")
        events.publish("container", "create", "other", {"a": "c"})
        events.publish("container", "start", "ident", {"a": "b", "image": "bb", "name": "n"})
        event = msgspec.json.decode(client.chunk())
        assert event["status"] == "start"
        assert (event["id"], event["from"], event["Type"], event["Action"]) == ("ident", "bb", "container", "start")
        assert event["Actor"] == {"ID": "ident", "Attributes": {"a": "b", "image": "bb", "name": "n"}}
        assert event["timeNano"] // 10**9 == event["time"]
    _until(lambda: not events._sinks)


def test_events_since_and_until(live: Any) -> None:
    events: Events = live.engine.events
    first = events.publish("container", "create", "a")
    second = events.publish("container", "start", "a")
    stamp = f"{second.time_nano // 10**9}.{second.time_nano % 10**9:09d}"
    answer = live.ask("GET", f"/events?since=1&until={stamp}")
    assert [msgspec.json.decode(line)["Action"] for line in answer.body.splitlines()] == ["create", "start"]
    answer = live.ask("GET", f"/events?until={first.time_nano // 10**9}")
    assert answer.body == b""
    began = time.monotonic()
    answer = live.ask("GET", f"/events?until={int(time.time()) + 1}")
    assert time.monotonic() - began < 2
    assert live.ask("GET", "/events?since=abc").status == 400
    assert live.ask("GET", '/events?filters={"nope":["x"]}').status == 400


def test_nothing_falls_between_past_and_future_events(live: Any) -> None:
    events: Events = live.engine.events
    stop = threading.Event()

    def publish() -> None:
        n = 0
        while not stop.is_set():
            events.publish("container", "start", str(n))
            n += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        with live.client() as client:
            client.send(b"GET /events?since=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            client.head()
            seen = b""
            while seen.count(b"\n") < 500:
                seen += client.chunk()
    finally:
        stop.set()
        thread.join()
    numbers = [int(msgspec.json.decode(line)["id"]) for line in seen.splitlines()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_client_that_lags_behind_is_cut_off(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from proa.api.operations import system

    monkeypatch.setattr(system, "MAX_LAG", 100)
    events: Events = live.engine.events
    with live.client() as client:
        client.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        client.head()
        _until(lambda: events._sinks)
        for _ in range(5000):
            events.publish("container", "start", "x" * 1000)
        _until(lambda: not events._sinks)


def test_an_endless_stream_ends_when_the_client_half_closes(live: Any) -> None:
    with live.client() as client:
        client.send(b"GET /t/endless/1000 HTTP/1.1\r\nHost: x\r\n\r\n")
        client.head()
        client.chunk()
        client.close_write()
        _until(lambda: live.engine.ended)
        client.rest()


def test_a_finite_stream_goes_on_after_half_close(live: Any) -> None:
    with live.client() as client:
        client.send(b"GET /t/finite/5 HTTP/1.1\r\nHost: x\r\n\r\n")
        client.close_write()
        answer = client.answer()
        assert answer.body == b"0\n1\n2\n3\n4\n"
        assert client.rest() == b""


def test_every_stream_ends_when_the_client_is_gone(live: Any) -> None:
    for i in range(20):
        with live.client() as client:
            kind = ("endless", "finite")[i % 2]
            client.send(f"GET /t/{kind}/1000 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            client.head()
            if i % 3:
                client.chunk()
    _until(lambda: len(live.engine.ended) == 20)
    _until(lambda: live.call(lambda: len(asyncio.all_tasks())) <= 3)


def test_a_failure_in_the_middle_tears_the_reply(live: Any) -> None:
    with live.client() as client:
        client.send(b"GET /torn HTTP/1.1\r\nHost: x\r\n\r\n")
        client.head()
        with pytest.raises((AssertionError, ConnectionError)):
            list(iter(client.chunk, b""))
    assert live.ask("GET", "/_ping").status == 200


def test_download(live: Any) -> None:
    answer = live.ask("GET", "/download/fine")
    assert (answer.status, len(answer.body), answer.headers["content-type"]) == (200, 65536000, "application/x-tar")
    answer = live.ask("GET", "/download/fail")
    assert (answer.status, answer.message) == (404, "No such image: x")
    with live.client() as client:
        client.send(b"GET /download/torn HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises((AssertionError, ConnectionError)):
            client.answer()


def test_a_download_stops_when_its_client_leaves(live: Any) -> None:
    with live.client() as client:
        client.send(b"GET /download/fine HTTP/1.1\r\nHost: x\r\n\r\n")
        client.head()
        client.chunk()
    _until(lambda: live.service.pools.slow_running == 0)
    assert live.engine.ended == []


def test_a_thousand_idle_event_streams_are_cheap(live: Any) -> None:
    def resident_kib() -> int:
        gc.collect()
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    clients = [live.client() for _ in range(50)]
    for client in clients:
        client.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        client.head()
    threads, before = threading.active_count(), resident_kib()
    more = [live.client() for _ in range(1000)]
    for client in more:
        client.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    for client in more:
        client.head()
    grown = resident_kib() - before
    assert threading.active_count() == threads
    assert grown < 48 * 1024, f"{grown} KiB for 1,000 streams"
    began = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - began < 0.05  # nothing ticks
    live.engine.events.publish("container", "start", "last")
    for client in (clients[0], more[0], more[-1]):
        assert b"last" in client.chunk()
    for client in clients + more:
        client.socket.close()
    _until(lambda: live.call(lambda: len(live.server.connections)) == 0)
    assert not live.engine.events._sinks


def test_events_are_what_the_engine_says() -> None:
    from proa.api.translate.events import event

    found = Event(type="network", action="connect", id="n", attributes={"container": "c"}, time_nano=1_500_000_000)
    assert event(found) == {
        "Type": "network",
        "Action": "connect",
        "Actor": {"ID": "n", "Attributes": {"container": "c"}},
        "scope": "local",
        "time": 1,
        "timeNano": 1_500_000_000,
    }
