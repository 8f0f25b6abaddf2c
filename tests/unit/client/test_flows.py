"""Flows under both faces, with a transport that answers from a script: no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from proa.client.calls import decode
from proa.client.containers import AsyncContainers, Containers
from proa.client.creation import creation
from proa.client.flow import (
    Awaiting,
    Blocking,
    EndInput,
    Exchange,
    Flow,
    Instruction,
    Item,
    Open,
    Read,
    Reply,
    Request,
    Stream,
    Write,
    operation,
    stream,
)
from proa.client.models import ContainerDetails, RunResult
from proa.errors import Corrupt, Invalid, NotFound, Unavailable


class Script:
    """A transport whose answers are given; what was asked is kept."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.closed = 0

    def perform(self, instruction: Instruction) -> Any:
        if isinstance(instruction, Exchange | Open):
            self.asked.append(f"{instruction.request.method} {instruction.request.target}")
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(instruction, Open) else Reply(200, {}, answer)
        channel = instruction.channel
        assert isinstance(channel, Channel)
        if isinstance(instruction, Read):
            return channel.pieces.pop(0) if channel.pieces else b""
        if isinstance(instruction, Write):
            channel.written += instruction.data
        elif isinstance(instruction, EndInput):
            channel.written += b"<end>"
        return None

    def close(self) -> None:
        self.closed += 1


class AsyncScript(Script):
    async def perform(self, instruction: Instruction) -> Any:  # type: ignore[override]
        await asyncio.sleep(0)
        return Script.perform(self, instruction)


class Channel:
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.written = b""
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def frame(number: int, data: bytes) -> bytes:
    return bytes([number, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def run_script() -> tuple[tuple[Any, ...], Channel, Channel]:
    attached = Channel(frame(1, b"out") + frame(2, b"err"))
    waiting = Channel(b'{"StatusCode":3}')
    return (
        (
            NotFound("No such image: x:latest"),
            b'{"Name":"docker.io/library/x:latest"}',
            b'{"status":"done"}',
            b'{"Id":"abc"}',
            attached,
            waiting,
            b"",
        ),
        attached,
        waiting,
    )


EXPECTED = [
    "POST /containers/create",
    "GET /proa/v1/reference?name=x",  # whose credentials are to be sent
    "POST /images/create?fromImage=x&tag=latest",
    "POST /containers/create",
    "POST /containers/abc/attach?stream=1&stdin=1&stdout=1&stderr=1",
    "POST /containers/abc/wait?condition=removed",
    "POST /containers/abc/start",
]


@pytest.fixture(autouse=True)
def no_credentials(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def pulled(answers: tuple[Any, ...]) -> tuple[Any, ...]:
    """The pull's reply is a stream."""
    return (*answers[:2], Channel(answers[2] + b"\n"), *answers[3:])


def test_run_is_one_flow_for_both_faces() -> None:
    answers, attached, waiting = run_script()
    transport = Script(*pulled(answers))
    result = Containers(transport).run("x", ["cat"], input=b"data")
    assert result == RunResult(3, b"out", b"err")
    assert transport.asked == EXPECTED
    assert attached.written == b"data<end>"
    assert attached.is_closed
    assert waiting.is_closed

    answers, attached, waiting = run_script()
    awaited = AsyncScript(*pulled(answers))
    assert asyncio.run(AsyncContainers(awaited).run("x", ["cat"], input=b"data")) == RunResult(3, b"out", b"err")
    assert awaited.asked == EXPECTED
    assert attached.is_closed


def test_without_input_it_is_one_request() -> None:
    channel = Channel(frame(1, b"out") + frame(4, b"3"))
    transport = Script(channel)
    assert Containers(transport).run("x", name="one") == RunResult(3, b"out", b"")
    assert transport.asked == ["POST /proa/v1/containers/run?name=one"]
    assert channel.is_closed


def test_a_missing_image_is_pulled_for_that_request() -> None:
    transport = Script(NotFound("No such image: x:latest"), b'{"Name":"x"}', Channel(b"{}\n"), Channel(frame(4, b"0")))
    assert Containers(transport).run("x").exit_code == 0
    assert transport.asked[-2:] == ["POST /images/create?fromImage=x&tag=latest", "POST /proa/v1/containers/run"]


def test_an_engine_that_ends_meanwhile() -> None:
    with pytest.raises(Unavailable, match="ended before the container did"):
        Containers(Script(Channel(frame(1, b"out")))).run("x")


def test_a_start_that_fails_in_that_request() -> None:
    told = b'{"errorDetail":{"message":"exec: x","code":"command-not-found","status":400},"error":"exec: x"}'
    channel = Channel(frame(3, told))
    with pytest.raises(NotFound) as caught:
        Containers(Script(channel)).run("x")
    assert caught.value.code == "command-not-found"
    assert channel.is_closed


def test_a_start_that_fails_leaves_nothing_open() -> None:
    attached, waiting = Channel(), Channel()
    failed = NotFound("exec: x", code="command-not-found")
    transport = Script(NotFound("page not found"), b'{"Id":"abc"}', attached, waiting, failed, b"")  # another engine
    with pytest.raises(NotFound) as caught:
        Containers(transport).run("x")
    assert caught.value.code == "command-not-found"
    assert transport.asked[-1] == "DELETE /containers/abc?force=1"
    assert attached.is_closed
    assert waiting.is_closed


class Numbers(Blocking):
    def __init__(self, transport: Script) -> None:
        self._transport = transport

    @operation
    def one(self) -> Flow[int]:
        """The number one."""
        reply = yield Exchange(Request("GET", "/one"))
        return int(reply.body)

    @stream
    def many(self) -> Stream[bytes]:
        """Pieces."""
        channel = yield Open(Request("GET", "/many"))
        try:
            while data := (yield Read(channel)):
                yield Item(data)
        finally:
            channel.close()


class AsyncNumbers(Awaiting):
    def __init__(self, transport: AsyncScript) -> None:
        self._transport = transport

    many = stream(Numbers.many.flow)


def test_methods_say_what_they_are() -> None:
    assert Numbers.one.__doc__ == "The number one."
    numbers = Numbers(Script(b"1"))
    assert numbers.one.__name__ == "one"
    assert numbers.one() == 1
    assert "image: a name such as" in (Containers.run.__doc__ or "")


def test_leaving_a_stream_early_closes_its_channel() -> None:
    channel = Channel(b"a", b"b", b"c")
    pieces: Iterator[bytes] = Numbers(Script(channel)).many()
    assert next(pieces) == b"a"
    assert not channel.is_closed
    pieces.close()  # type: ignore[attr-defined]
    assert channel.is_closed

    channel = Channel(b"a", b"b", b"c")

    async def leave() -> None:
        stream_of = AsyncNumbers(AsyncScript(channel)).many()
        async for piece in stream_of:
            assert piece == b"a"
            break
        await stream_of.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave())
    assert channel.is_closed


def test_cancelling_closes_what_is_open() -> None:
    attached, waiting = Channel(), Channel(b'{"StatusCode":0}')

    class Hanging(AsyncScript):
        async def perform(self, instruction: Instruction) -> Any:  # type: ignore[override]
            if isinstance(instruction, Read):
                await asyncio.sleep(60)
            return await super().perform(instruction)

    async def cancel() -> None:
        transport = Hanging(b'{"Id":"abc"}', attached, waiting, b"")
        task = asyncio.ensure_future(AsyncContainers(transport).run("x", input=b"in"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert attached.is_closed
    assert waiting.is_closed


def test_documents_are_checked() -> None:
    with pytest.raises(Corrupt):
        decode(b'{"Id": 5}', ContainerDetails)
    with pytest.raises(Corrupt):
        decode(b"{", ContainerDetails)
    document = b'{"Id":"a","Name":"/b","New":1,"State":{"Status":"exited","OOMKilled":true},"Config":{"Env":null}}'
    details = decode(document, ContainerDetails)
    assert (details.id, details.state.oom_killed, details.config.env) == ("a", True, None)


def test_creations() -> None:
    made = creation(
        "image",
        "true",
        env={"A": "1"},
        ports={"80": 8080, "53/udp": None, "1": "127.0.0.1:9"},
        cpus=0.5,
        restart="on-failure:2",
    )
    host = made.document["HostConfig"]
    assert made.document["Cmd"] == ["true"]
    assert made.document["Env"] == ["A=1"]
    assert host["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "", "HostPort": ""}],
        "1/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9"}],
    }
    assert host["NanoCpus"] == 500_000_000
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert creation("image").document["HostConfig"] == {}
    for bad in ({"A=B": "1"}, {"": "1"}):
        with pytest.raises(Invalid):
            creation("image", env=bad)
    with pytest.raises(Invalid):
        creation("image", restart="on-failure:x")
