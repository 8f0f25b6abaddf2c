import errno
import json
import os
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.errors import Corrupt, Exhausted, NotFound, Unavailable
from proa.storage.records import (
    Records,
    delete_record,
    disk_faults,
    file_name,
    is_sealed,
    key_of,
    read_record,
    write_record,
)


class Point(msgspec.Struct):
    x: int
    y: int = 0


def test_record_round_trip(tmp_path):
    path = tmp_path / "p.json"
    write_record(path, Point(1, 2))
    assert read_record(path, Point) == Point(1, 2)
    assert path.stat().st_mode & 0o777 == 0o600
    write_record(path, Point(3), durable=False)
    assert read_record(path, Point) == Point(3)
    assert delete_record(path)
    assert not delete_record(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("raw", [b"", b"{", b'{"x": "one"}', b"[]", b'{"x":1}garbage', b"\xff", b"[" * 100_000])
def test_unreadable_record_is_corrupt(tmp_path, raw):
    path = tmp_path / "p.json"
    path.write_bytes(raw)
    with pytest.raises(Corrupt):
        read_record(path, Point)


def test_missing_record_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        read_record(tmp_path / "p.json", Point)


def test_failed_write_leaves_the_old_record(tmp_path, monkeypatch):
    path = tmp_path / "p.json"
    write_record(path, Point(1))

    def full(fd, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Exhausted) as e:
        write_record(path, Point(2))
    monkeypatch.undo()
    assert e.value.code == "disk-full"
    assert read_record(path, Point) == Point(1)
    assert os.listdir(tmp_path) == ["p.json"]


def test_readers_see_whole_records_while_writers_write(tmp_path):
    path = tmp_path / "p.json"
    write_record(path, Point(0, 0), durable=False)
    stop = threading.Event()

    def write():
        n = 0
        while not stop.is_set():
            n += 1
            write_record(path, Point(n, n), durable=False)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for t in threads:
        t.start()
    for _ in range(300):
        point = read_record(path, Point)
        assert point.x == point.y
    stop.set()
    for t in threads:
        t.join()
    assert os.listdir(tmp_path) == ["p.json"]


def test_walk_reports_damage_and_tidy_removes_leftovers(tmp_path):
    records = Records(tmp_path, Point)
    records.put("b/c", Point(2))
    records.put("a", Point(1))
    (tmp_path / "bad.json").write_bytes(b"")
    (tmp_path / ".tmp-12-34").write_bytes(b"{")
    found = [value if isinstance(value, Point) else type(value) for _, value in records.walk()]
    assert found == [Point(1), Point(2), Corrupt]
    assert records.tidy() == 1
    assert records.get("b/c") == Point(2)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
def test_file_names_are_safe_and_reversible(key):
    name = file_name(key)
    assert 0 < len(os.fsencode(name)) <= 200
    assert "/" not in name
    assert not name.startswith(".")
    assert key_of(name) in (key, None)


@given(st.lists(st.text(max_size=80), unique=True, min_size=2, max_size=20))
def test_file_names_are_distinct(keys):
    assert len({file_name(k) for k in keys}) == len(keys)


def test_other_faults_pass():
    with pytest.raises(OSError, match="odd") as e, disk_faults("x"):
        raise OSError(errno.ELOOP, "odd")
    assert e.value.errno == errno.ELOOP
    with pytest.raises(Unavailable, match="the disk fails while writing x: Input/output error"), disk_faults("x"):
        raise OSError(errno.EIO, "odd")
    with pytest.raises(Exhausted), disk_faults("x"):
        raise OSError(errno.EMFILE, "too many")


def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "p.json"
    write_record(path, Point(1234, 5678))
    raw = path.read_bytes()
    assert json.loads(raw) == {"crc32": raw[10:18].decode(), "x": 1234, "y": 5678}
    assert is_sealed(raw)
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            read_record(path, Point)
        except Corrupt:
            continue
        assert not is_sealed(bytes(flipped)), bit  # the flip hit the mark itself: `system check` reports its absence


def test_records_of_older_versions_are_read(tmp_path):
    (tmp_path / "p.json").write_text('{"x":1}')
    assert read_record(tmp_path / "p.json", Point) == Point(1)
