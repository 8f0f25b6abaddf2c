"""An engine that ends just when a client comes: what it did not read is asked of the next one, what it read is not."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import proa
from proa.cli.foreground import Outcome
from proa.client.caller import Caller
from proa.client.endpoint import locate

BODY = b'{"Version": "ok", "ApiVersion": "1.51", "StatusCode": 7}'
REPLY = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Server:
    """Handles each connection by the next of its manners: `leave` before reading, `read` and leave, `answer`."""

    def __init__(self, path: Path, manners: list[str]) -> None:
        self.address = f"unix://{path}"
        self.requests = 0
        self._manners = manners
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for manner in self._manners:
            connection, _ = self._listener.accept()
            with connection:
                connection.recv(1, socket.MSG_PEEK)  # the request is there
                if manner == "leave":
                    continue
                while not (data := connection.recv(65536)).endswith((b"\r\n\r\n", b"}")):
                    assert data
                self.requests += 1
                if manner == "answer":
                    connection.sendall(REPLY)

    def close(self) -> None:
        self._thread.join(20)
        self._listener.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*manners: str) -> Server:
        started.append(Server(tmp_path / "s", list(manners)))
        return started[-1]

    yield start
    for server in started:
        server.close()


def by_caller(address: str) -> object:
    return Caller(locate(address)).call("POST", "/version", {"a": 1})["Version"]


def by_sdk(address: str) -> object:
    with proa.connect(address) as client:
        return client.version().version


def by_awaiting_sdk(address: str) -> object:
    async def ask() -> object:
        async with proa.connect_async(address) as client:
            return (await client.version()).version

    return asyncio.run(ask())


@pytest.mark.parametrize("ask", [by_caller, by_sdk, by_awaiting_sdk])
def test_a_request_that_was_not_read_is_sent_again(serve: Callable[..., Server], ask: Callable[[str], object]) -> None:
    server = serve("leave", "answer")
    assert ask(server.address) == "ok"
    assert server.requests == 1


@pytest.mark.parametrize("ask", [by_caller, by_sdk, by_awaiting_sdk])
def test_a_request_that_was_read_is_not(serve: Callable[..., Server], ask: Callable[[str], object]) -> None:
    """What became of it is not known: it is the user's to decide."""
    server = serve("read")
    with pytest.raises(proa.Unavailable):
        ask(server.address)
    assert server.requests == 1


@pytest.mark.parametrize("ask", [by_caller, by_sdk, by_awaiting_sdk])
def test_but_not_for_ever(serve: Callable[..., Server], ask: Callable[[str], object]) -> None:
    server = serve("leave", "leave")
    with pytest.raises(proa.Unavailable):
        ask(server.address)
    assert server.requests == 0


def test_the_wait_for_an_outcome_goes_on_where_it_was_answered(serve: Callable[..., Server]) -> None:
    """What is watched and read is the connection of the second request, not the closed one of the first."""
    server = serve("leave", "answer")
    outcome = Outcome(locate(server.address), "0" * 64, "next-exit")
    outcome.begun()
    assert outcome.fileno() >= 0
    assert outcome.status() == 7
    assert server.requests == 1
