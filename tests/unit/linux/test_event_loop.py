"""What is ready is served once, by whom it was meant for, and in order."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from proa.linux.events import IN, Loop


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    made = [os.pipe() for _ in range(3)]
    yield made
    for pipe in made:
        for fd in pipe:
            os.close(fd)


def test_what_was_reported_of_a_closed_descriptor_is_not_said_of_its_successor(pipes: list[tuple[int, int]]) -> None:
    loop = Loop("test")
    served: list[str] = []
    (first, first_in), (second, second_in), (empty, _) = pipes

    def replace(_: int) -> None:
        served.append("first")
        loop.forget(first)
        loop.forget(second)
        os.dup2(empty, second)
        loop.watch(second, IN, lambda _: served.append("successor"))

    loop.watch(second, IN, lambda _: served.append("second"))
    loop.watch(first, IN, replace, first=True)
    os.write(second_in, b"x")
    os.write(first_in, b"x")
    loop.step(0)
    loop.step(0)
    assert served == ["first"]


def test_what_is_due_is_called_once_and_the_cancelled_never(capsys: pytest.CaptureFixture[str]) -> None:
    loop = Loop("test")
    called: list[str] = []

    def fail() -> None:
        called.append("failed")
        raise ValueError("of its own")

    loop.later(0, fail)
    loop.later(0, lambda: called.append("due"))
    loop.later(0, lambda: called.append("cancelled")).cancel()
    loop.later(3600, lambda: called.append("early"))
    loop.step()
    loop.step(0)
    assert called == ["failed", "due"]
    assert "test: ValueError: of its own at" in capsys.readouterr().err
