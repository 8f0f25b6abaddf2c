"""Bridges between the loop and threads: complete, bounded, and never stuck."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proa.api import pipes
from proa.api.pipes import WINDOW, Inflow, Outflow
from proa.errors import Cancelled, Invalid


async def _pieces(pieces: list[bytes], taken: list[int] | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        if taken is not None:
            taken.append(len(piece))
        yield piece
        await asyncio.sleep(0)


def test_inflow_is_complete() -> None:
    pieces = [os.urandom(n) for n in (1, 70000, 3, 262144, 5)] * 20

    async def run() -> bytes:
        flow = Inflow(_pieces(pieces))
        data = await asyncio.to_thread(flow.read)
        await flow.finish()
        return data or b""

    assert hashlib.sha256(asyncio.run(run())).digest() == hashlib.sha256(b"".join(pieces)).digest()


def test_inflow_waits_for_its_reader() -> None:
    async def run() -> None:
        taken: list[int] = []
        flow = Inflow(_pieces([b"x" * 65536] * 1000, taken))
        await asyncio.sleep(0.1)
        assert sum(taken) <= WINDOW + 2 * 65536
        assert await asyncio.to_thread(flow.read, 10) == b"x" * 10
        await flow.finish()

    asyncio.run(run())


def test_inflow_carries_the_bodys_failure_to_the_reader() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise Invalid("the request body ended early")

    async def run() -> None:
        flow = Inflow(broken())
        assert await asyncio.to_thread(flow.read, 4) == b"some"
        with pytest.raises(Invalid, match="ended early"):
            await asyncio.to_thread(flow.read, 4)
        await flow.finish()

    asyncio.run(run())


def test_inflow_finished_in_the_middle_lets_its_reader_go() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(3600)

    async def run() -> None:
        flow = Inflow(endless())
        assert await asyncio.to_thread(flow.read, 1) == b"a"
        reading = asyncio.ensure_future(asyncio.to_thread(flow.read, 1))
        await asyncio.sleep(0.05)
        await flow.finish()
        with pytest.raises(Cancelled):
            await reading

    asyncio.run(run())


def test_outflow_is_complete_and_gathers_small_writes() -> None:
    pieces = [os.urandom(n) for n in (1, 512, 512, 70000)] * 500

    async def run() -> tuple[bytes, int]:
        flow = Outflow()

        def work() -> None:
            for piece in pieces:
                assert flow.write(piece) == len(piece)
            flow.end()

        thread = threading.Thread(target=work)
        thread.start()
        await flow.started()
        chunks = [chunk async for chunk in flow.chunks()]
        thread.join()
        return b"".join(chunks), len(chunks)

    data, count = asyncio.run(run())
    assert data == b"".join(pieces)
    assert count < len(pieces) / 4


def test_outflow_waits_for_its_reader() -> None:
    async def run() -> None:
        flow = Outflow()
        written: list[int] = []

        def work() -> None:
            try:
                while True:
                    written.append(flow.write(b"x" * 65536))
            except Cancelled:
                written.append(0)

        thread = threading.Thread(target=work)
        thread.start()
        await asyncio.sleep(0.1)
        assert sum(written) <= WINDOW + 65536
        flow.abandon()
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive()
        assert written[-1] == 0

    asyncio.run(run())


def test_outflow_abandoned_by_its_iterator_cancels_the_writer() -> None:
    async def run() -> None:
        flow = Outflow()
        flow.write(b"one")
        chunks: Any = flow.chunks()
        assert await anext(chunks) == b"one"
        await chunks.aclose()
        with pytest.raises(Cancelled):
            flow.write(b"two")

    asyncio.run(run())


def test_outflow_failures_before_and_after_the_first_bytes() -> None:
    async def run() -> None:
        flow = Outflow()
        flow.end(Invalid("at once"))
        with pytest.raises(Invalid, match="at once"):
            await flow.started()
        flow = Outflow()
        flow.write(b"some")
        flow.end(Invalid("later"))
        await flow.started()
        chunks = flow.chunks()
        assert await anext(chunks) == b"some"
        with pytest.raises(Invalid, match="later"):
            await anext(chunks)

    asyncio.run(run())


def test_progress_that_is_superseded_may_be_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "WINDOW", 1000)

    async def run() -> None:
        flow = Outflow()
        taken = sum(flow.offer(b"x" * 100) for _ in range(100))
        assert taken == 10

    asyncio.run(run())


def test_much_passes_quickly_through_both() -> None:
    """Not a benchmark, only a guard against a copy or a wake-up per byte."""
    piece = bytes(256 << 10)

    async def run() -> None:
        out = Outflow()

        def produce() -> None:
            for _ in range(512):
                out.write(piece)
            out.end()

        threading.Thread(target=produce).start()
        flow = Inflow(out.chunks())

        def consume() -> int:
            total = 0
            buffer = bytearray(1 << 20)
            while count := flow.readinto(buffer):
                total += count
            return total

        assert await asyncio.to_thread(consume) == 512 * len(piece)
        await flow.finish()

    began = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - began < 5
