from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.engine import exits
from proa.errors import Denied, Internal, Invalid, NotFound
from proa.linux import process


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as started:
        yield started
        started.kill()


def test_why_a_start_failed() -> None:
    assert exits.start_failure_status(NotFound("x", code="command-not-found")) == 127
    assert exits.start_failure_status(Denied("x", code="command-not-executable")) == 126
    assert exits.start_failure_status(Invalid("x")) == 128
    assert exits.start_failure_status(Internal("x", code="whatever")) == 128


def test_records(tmp_path: Path) -> None:
    assert exits.read(tmp_path) is None
    assert exits.monitor_state(tmp_path) is None
    (tmp_path / "exit.json").write_text('{"status": 3, "time": "t", "oom": false}')
    (tmp_path / "monitor.json").write_text('{"pid": 1}')
    assert exits.read(tmp_path) == {"status": 3, "time": "t", "oom": False}
    assert exits.monitor_state(tmp_path) == {"pid": 1}
    exits.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []
    exits.forget(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\0"])
def test_damaged_records_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "exit.json").write_text(text)
    (tmp_path / "monitor.json").write_text(text)
    assert exits.read(tmp_path) is None
    assert exits.monitor_state(tmp_path) is None
    assert exits.lost(tmp_path)["status"] == 137


def record(directory: Path, pid: int, start_time: int, boot_id: str) -> None:
    (directory / "monitor.json").write_text(json.dumps({"pid": pid, "start_time": start_time, "boot_id": boot_id}))


def test_what_a_dead_monitor_left_is_ended(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    record(tmp_path, child.pid, process.start_time(child.pid), exits.boot_id())
    found = exits.lost(tmp_path)
    assert child.wait(10) == -9
    assert found["status"] == 137
    assert "monitor died" in found["error"]
    assert found["time"].endswith("Z")


def test_another_process_with_that_pid_is_left_alone(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    started = process.start_time(child.pid)
    for start_time, boot_id in ((started + 1, exits.boot_id()), (started, "another boot"), (0, exits.boot_id())):
        record(tmp_path, child.pid, start_time, boot_id)
        assert exits.lost(tmp_path)["status"] == 137
    for pid in (0, 1, -1, child.pid):
        exits.kill_process(pid, 0)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.05)


def test_a_process_that_is_gone(child: subprocess.Popen[bytes]) -> None:
    started = process.start_time(child.pid)
    child.kill()
    child.wait()
    exits.kill_process(child.pid, started)
