"""The SDK, blocking and awaited, against an engine: what a program does with containers and images."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from engines import PrivateEngine

import proa

pytestmark = pytest.mark.root


def test_blocking(box: PrivateEngine, busybox_tar: Path) -> None:
    with proa.connect(box.socket) as client:
        done = client.containers.run("busybox", ["sh", "-c", "cat; echo err >&2; exit 3"], input=b"in", network="none")
        assert (done.exit_code, done.stdout, done.stderr) == (3, b"in", b"err\n")
        container = client.containers.run_detached(
            "busybox", ["sh", "-c", "echo up; sleep 1000"], name="sdk", network="none"
        )
        assert container.name == "sdk"
        result = container.exec(["sh", "-c", "echo $0 inside; exit 4"])
        assert (result.exit_code, result.stdout) == (4, b"sh inside\n")
        lines = container.follow_logs()
        assert b"up" in next(iter(lines)).data
        container.commit("tests/sdk:1")
        container.kill()
        assert container.wait() == 137
        container.remove()
        assert client.containers.list(all=True) == []
        assert "tests/sdk:1" in client.images.get("tests/sdk:1").tags
        with pytest.raises(proa.NotFound, match="No such container: sdk"):
            client.containers.get("sdk")
        with pytest.raises(proa.NotFound):
            client.containers.run("busybox", ["nosuch"], network="none")


def test_awaited(box: PrivateEngine) -> None:
    async def work() -> list[bytes]:
        async with proa.connect_async(box.socket) as client:

            async def one(number: int) -> bytes:
                done = await client.containers.run("busybox", ["echo", str(number)], network="none")
                return done.stdout

            several = await asyncio.gather(*(one(n) for n in range(8)))
            container = await client.containers.run_detached("busybox", ["sleep", "1000"], network="none")
            seen = await container.exec(["hostname"])
            assert seen.stdout.decode().strip() == container.id[:12]
            await container.remove(force=True)
            with pytest.raises(proa.NotFound):
                await client.images.get("nosuch")
            return several

    assert asyncio.run(work()) == [f"{n}\n".encode() for n in range(8)]
