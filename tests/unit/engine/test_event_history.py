from __future__ import annotations

from pathlib import Path

import pytest

from proa.engine import events as module
from proa.engine.events import Events


def test_the_next_engine_knows_what_happened(tmp_path: Path) -> None:
    first = Events(tmp_path / "events")
    early = first.publish("container", "start", "a", {"name": "x"})
    first.close()
    second = Events(tmp_path / "events")
    late = second.publish("container", "die", "a")
    assert second.history(since_ns=1) == [early, late]
    assert second.history(since_ns=early.time_nano, until_ns=early.time_nano) == [early]
    assert second.history(since_ns=late.time_nano) == [late]
    second.close()


def test_what_memory_has_forgotten_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    events = Events(tmp_path / "events")
    published = [events.publish("container", f"step{n}", "a") for n in range(10)]
    assert events.history(since_ns=1) == published
    assert events.history(since_ns=published[8].time_nano) == published[8:]
    events.close()


def test_execs_of_this_engine_are_there_whatever_is_asked(tmp_path: Path) -> None:
    first = Events(tmp_path / "events")
    first.publish("container", "start", "a")
    first.publish("container", "exec_create: true", "a")
    first.close()
    second = Events(tmp_path / "events")
    second.publish("container", "exec_create: true", "a")
    second.publish("container", "die", "a")
    assert [e.action for e in second.history(since_ns=1)] == ["start", "exec_create: true", "die"]
    second.close()


def test_the_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_BYTES", 2000)
    monkeypatch.setattr(module, "REMEMBERED", 2)
    events = Events(tmp_path / "events")
    published = [events.publish("container", "start", "a" * 64, {"n": str(n)}) for n in range(100)]
    events.close()
    files = list((tmp_path / "events").iterdir())
    assert {f.name for f in files} == {"current.jsonl", "before.jsonl"}
    assert sum(f.stat().st_size for f in files) <= 4000
    found = events.history(since_ns=1)
    assert found == published[-len(found) :]
    assert len(found) > 10


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    events = Events(tmp_path / "events")
    kept = [events.publish("image", "pull", "b"), events.publish("image", "tag", "b")]
    events.close()
    file = tmp_path / "events" / "current.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b'{"type":"imag\n' + lines[1] + b'{"ty')
    assert Events(tmp_path / "events").history(since_ns=1) == kept


def test_execs_are_told_but_not_written(tmp_path: Path) -> None:
    events = Events(tmp_path / "events")
    heard: list[str] = []
    events.subscribe(lambda event: heard.append(event.action))
    events.publish("container", "exec_create: true", "a")
    events.publish("container", "die", "a")
    events.close()
    assert heard == ["exec_create: true", "die"]
    assert [e.action for e in Events(tmp_path / "events").history(since_ns=1)] == ["die"]


def test_times_only_grow() -> None:
    events = Events()
    times = [events.publish("container", "start", "a").time_nano for _ in range(50)]
    assert sorted(set(times)) == times


def test_a_directory_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("in the way")
    events = Events(tmp_path / "events")
    event = events.publish("container", "start", "a")
    assert events.history(since_ns=event.time_nano) == [event]
