from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from proa.engine.agenda import Agenda


@pytest.fixture
def agenda() -> Iterator[Agenda]:
    made = Agenda()
    yield made
    made.close()


def test_things_are_done_in_the_order_they_are_due(agenda: Agenda) -> None:
    done: list[str] = []
    over = threading.Event()
    agenda.later(0.8, over.set)
    agenda.later(0.7, lambda: done.append("second"))
    agenda.later(0.0, lambda: done.append("first"))
    assert over.wait(5)
    assert done == ["first", "second"]


def test_what_was_cancelled_is_not_done(agenda: Agenda) -> None:
    done: list[str] = []
    over = threading.Event()
    agenda.later(0.5, lambda: done.append("cancelled")).cancel()
    agenda.later(0.6, over.set)
    assert over.wait(5)
    assert done == []


def test_one_failure_stops_nothing(agenda: Agenda) -> None:
    over = threading.Event()
    agenda.later(0.0, lambda: 1 // 0)
    agenda.later(0.02, over.set)
    assert over.wait(5)


def test_a_descriptor_is_told_of_until_forgotten(agenda: Agenda) -> None:
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    seen: list[bytes] = []
    heard = threading.Event()

    def readable() -> None:
        seen.append(os.read(read_fd, 100))
        heard.set()

    agenda.watch(read_fd, readable)
    os.write(write_fd, b"one")
    assert heard.wait(5)
    agenda.forget(read_fd)
    os.write(write_fd, b"two")
    time.sleep(0.05)
    assert seen == [b"one"]
    os.close(read_fd)
    os.close(write_fd)


def test_closing_waits_for_what_is_being_done_and_drops_the_rest() -> None:
    agenda = Agenda()
    done: list[str] = []
    begun = threading.Event()

    def slow() -> None:
        begun.set()
        time.sleep(0.05)
        done.append("slow")

    agenda.soon(slow)
    agenda.later(60, lambda: done.append("later"))
    assert begun.wait(5)
    agenda.close()
    agenda.soon(lambda: done.append("after"))
    assert done == ["slow"]


def test_an_agenda_without_entries_has_no_thread() -> None:
    before = threading.active_count()
    agenda = Agenda()
    assert threading.active_count() == before
    agenda.close()
