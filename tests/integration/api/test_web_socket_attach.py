"""Attaching by web socket: the same as by hijacking, in messages."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

pytestmark = pytest.mark.root

CREATE = {"Image": "busybox", "Cmd": ["cat"], "OpenStdin": True, "HostConfig": {"NetworkMode": "none"}}


def _create(engine: Any, **more: Any) -> str:
    status, said = engine.ask("POST", "/containers/create", json.dumps(CREATE | more).encode())
    assert status == 201, said
    return str(said["Id"])


def _socket(engine: Any) -> aiohttp.ClientSession:
    return aiohttp.ClientSession("http://proa", connector=aiohttp.UnixConnector(str(engine.socket)))


@pytest.mark.parametrize("tty", [False, True])
def test_before_the_start_and_after_it(shared: Any, tty: bool) -> None:
    name = _create(shared, Tty=tty)
    target = f"/containers/{name}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1"

    async def talk() -> None:
        async with _socket(shared) as session, session.ws_connect(target) as waiting:
            async with session.post(f"/containers/{name}/start") as started:
                assert started.status == 204
            async with session.ws_connect(target) as second:
                await second.send_str("from a text message\n")
                for client in (waiting, second):
                    said = b""
                    while b"from a text message" not in said:
                        said += await client.receive_bytes(timeout=30)
                    assert not said.startswith(b"\x01\x00\x00\x00")

    asyncio.run(talk())
    asked = quote(json.dumps({"container": [name], "event": ["attach"]}))
    _, told = shared.ask("GET", f"/events?since=1&until={time.time():.9f}&filters={asked}")
    assert told.count(b'"Action":"attach"') == 2, told
    shared.docker("rm", "-f", name)


def test_refusals_are_those_of_an_attach(shared: Any) -> None:
    name = _create(shared)
    shared.docker("start", name)
    shared.docker("pause", name)
    target = f"/containers/{name}/attach"
    hijacking = shared.ask("POST", f"{target}?stream=1&stdout=1")
    web = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert hijacking == shared.ask("GET", f"{target}/ws?stream=1&stdout=1", **web)
    assert hijacking[0] == 409
    assert hijacking[1]["message"].endswith("is paused, unpause the container before attach")
    assert shared.ask("GET", f"{target}/ws")[0] == 400
    shared.docker("rm", "-f", name)
