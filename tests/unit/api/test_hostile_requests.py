"""Random and mutated requests: every one is answered or refused, and the service goes on."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from proa.api.translate.containers import create_request
from proa.engine.events import Events
from proa.engine.types import CreateResult
from proa.errors import Invalid, NotFound

CREATE: dict[str, Any] = {
    "Hostname": "",
    "User": "",
    "AttachStdin": False,
    "Tty": False,
    "Env": ["A=b"],
    "Cmd": ["sh"],
    "Image": "busybox",
    "Volumes": {"/v": {}},
    "Entrypoint": None,
    "Labels": {"a": "b"},
    "ExposedPorts": {"80/tcp": {}},
    "HostConfig": {
        "Binds": ["x:/x"],
        "NetworkMode": "default",
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "ConsoleSize": [30, 100],
        "Memory": 0,
        "NanoCpus": 0,
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
        "Mounts": [{"Type": "tmpfs", "Target": "/t"}],
        "LogConfig": {"Type": "", "Config": {}},
    },
    "NetworkingConfig": {"EndpointsConfig": {"default": {"Aliases": ["a"]}}},
}
JUNK = [None, True, 0, -1, 2**53, 1.5, "", "x" * 1000, "\x00", [], [None], {}, {"": None}, [[[]]], {"a": {"b": []}}]


every_door = pytest.mark.parametrize("door", ["own", "scoped", "tls"], indirect=True)


def _mutate(value: Any, choose: random.Random) -> Any:
    if isinstance(value, dict) and value and choose.random() < 0.8:
        key = choose.choice(list(value))
        if choose.random() < 0.2:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _mutate(value[key], choose)}
    if isinstance(value, list) and value and choose.random() < 0.5:
        return [_mutate(item, choose) for item in value]
    return choose.choice(JUNK)


def test_mutated_create_requests_are_taken_or_refused() -> None:
    choose = random.Random(1)
    refused = 0
    for _ in range(3000):
        body = _mutate(CREATE, choose)
        if not isinstance(body, dict):
            continue
        try:
            create_request(body, "", "")
        except Invalid:
            refused += 1
    assert refused > 500


@every_door
def test_mutated_bodies_over_the_wire(serve: Callable[..., Any]) -> None:

    def nothing(name: str) -> Any:
        raise NotFound(f"no such thing: {name}", code="nothing")

    engine = SimpleNamespace(
        events=Events(),
        containers=SimpleNamespace(create=lambda request: CreateResult(id=request.config.image), get=nothing),
        networks=SimpleNamespace(get=nothing),
        volumes=SimpleNamespace(get=nothing),
    )
    live = serve(engine)
    choose = random.Random(2)
    raw = msgspec.json.encode(CREATE)
    statuses = set()
    with live.client() as client:
        for _ in range(400):
            data = bytearray(raw)
            for _ in range(choose.randint(1, 5)):
                data[choose.randrange(len(data))] = choose.randrange(256)
            answer = client.ask("POST", "/containers/create", bytes(data))
            statuses.add(answer.status)
            assert answer.status == 201 or answer.message
        assert client.ask("POST", "/containers/create", raw).json == {"Id": "busybox", "Warnings": []}
    assert statuses <= {201, 400} | ({403} if live.kind == "scoped" else set())


@every_door
def test_random_bytes_are_no_harm(serve: Callable[..., Any]) -> None:
    live = serve()
    choose = random.Random(3)
    good = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    for _ in range(300):
        data = bytearray(good)
        for _ in range(choose.randint(1, 8)):
            data[choose.randrange(len(data))] = choose.randrange(256)
        with live.client() as client:
            client.send(bytes(data))
            client.close_write()
            said = client.rest()
            assert said == b"" or said.startswith(b"HTTP/1.")
            assert said[9:10] != b"5"
    assert live.ask("GET", "/_ping").status == 200


@every_door
@pytest.mark.parametrize(
    "target", ["/containers/json?limit=x", "/containers/json?filters=%7B", "/events?since=x", "/a?%ff"]
)
def test_bad_parameters(serve: Callable[..., Any], target: str) -> None:
    assert serve().ask("GET", target).status in (400, 404)
