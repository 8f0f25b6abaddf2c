import os
import threading
import time

import pytest

from proa.storage import Storage, upper_dir
from proa.storage.spares import Spares


@pytest.fixture(autouse=True)
def _soon(monkeypatch, _no_spares):
    monkeypatch.setattr("proa.storage.spares._PAUSE_S", 0.01)


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_stock_is_filled_after_the_first_use():
    made, dropped = [], []

    def make():
        made.append(str(len(made)))
        return made[-1]

    spares = Spares(make, dropped.append, count=3)
    assert made == []
    assert spares.take() == "0"
    wait_for(lambda: len(made) == 4)
    assert [spares.take() for _ in range(3)] == ["1", "2", "3"]
    spares.close()
    spares.close()
    assert dropped == made[4:]
    assert not [t for t in threading.enumerate() if t.name == "spares"]


def test_failure_is_the_takers():
    def make():
        raise OSError("full")

    spares = Spares(make, lambda name: None)
    for _ in range(3):
        with pytest.raises(OSError, match="full"):
            spares.take()
        time.sleep(0.03)
    spares.close()


def test_directories_made_ahead_are_used_and_not_left(tmp_path):
    with Storage.open(tmp_path / "root") as s:
        s.snapshots.prepare("a")
        wait_for(lambda: len(os.listdir(tmp_path / "root" / "snapshots")) == 8)
        assert upper_dir(s.snapshots.prepare("b")).endswith("/2/fs")
        s.snapshots.commit("layer", "b")
        s.snapshots.prepare("c", "layer")
    assert sorted(os.listdir(tmp_path / "root" / "snapshots")) == ["1", "2", "3", "records"]


def test_directories_made_ahead_by_a_dead_process_are_deleted(tmp_path):
    with Storage.open(tmp_path / "root") as s:
        s.snapshots.prepare("a")
    for n in ("5", "6"):
        (tmp_path / "root" / "snapshots" / n / "fs").mkdir(parents=True)
    with Storage.open(tmp_path / "root") as s:
        assert s.trash.drain(20)
        assert sorted(os.listdir(tmp_path / "root" / "snapshots")) == ["1", "records"]
