"""Reading json-file logs back: rotation, tail, since and until, following, lines cut short."""

from __future__ import annotations

import json
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.engine.logs import LogReader
from proa.engine.types import LogEntry, LogRequest
from proa.errors import Unsupported


def line(number: int, stream: str = "stdout", text: str = "") -> bytes:
    return json.dumps({"log": text or f"line {number}\n", "stream": stream, "time": stamp(number)}).encode() + b"\n"


def stamp(number: int) -> str:
    return f"2026-01-01T00:00:{number // 1000:02d}.{number % 1000:03d}000000Z"


class Log:
    """A log of numbered lines, in one file or several."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "box-json.log"
        self.ended = True
        self._readers: list[LogReader] = []

    def write(self, *files: bytes) -> None:
        """Oldest first; the last is the current one."""
        for age, data in enumerate(reversed(files)):
            (self.path if age == 0 else self.path.with_name(f"{self.path.name}.{age}")).write_bytes(data)

    def reader(self, **fields: Any) -> LogReader:
        self._readers.append(LogReader(self.path, LogRequest(**fields), lambda: self.ended))
        return self._readers[-1]

    def read(self, **fields: Any) -> list[int]:
        """The numbers of the lines, all of them."""
        reader = self.reader(**fields)
        return numbers(rest(reader))

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


def rest(reader: LogReader) -> list[LogEntry]:
    found: list[LogEntry] = []
    while not reader.finished:
        found += reader.read()
    return found


def numbers(entries: list[LogEntry]) -> list[int]:
    return [int(entry.data.split()[-1]) for entry in entries]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.close()


def lines(first: int, end: int, **options: Any) -> bytes:
    return b"".join(line(n, **options) for n in range(first, end))


def test_one_file(log: Log) -> None:
    log.write(lines(0, 10))
    assert log.read() == list(range(10))
    entries = rest(log.reader())
    assert (entries[3].data, entries[3].time, entries[3].stream) == (b"line 3\n", stamp(3), 1)


def test_nothing(log: Log) -> None:
    assert log.read() == []
    log.write(b"")
    assert log.read() == []
    assert log.read(tail=5) == []


def test_rotated_files_in_order(log: Log) -> None:
    log.write(*(lines(n * 10, n * 10 + 10) for n in range(12)))
    assert log.read() == list(range(120))


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 14, 15, 16, 29, 30, 31, 1000])
def test_tail(log: Log, count: int) -> None:
    log.write(lines(0, 10), lines(10, 25), lines(25, 30))
    assert log.read(tail=count) == list(range(max(0, 30 - count), 30))


def test_tail_of_one_stream(log: Log) -> None:
    log.write(b"".join(line(n, "stderr" if n % 3 == 0 else "stdout") for n in range(30)))
    assert log.read(tail=2, stdout=False) == [24, 27]
    assert log.read(tail=3, stderr=False) == [26, 28, 29]
    assert log.read(stdout=False) == list(range(0, 30, 3))


@given(
    sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=3),
    data=st.data(),
)
def test_tail_of_lines_of_any_length(
    tmp_path_factory: Any, sizes: list[int], cuts: list[int], data: st.DataObject
) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    every = [line(n, text="x" * size + f" {n}\n") for n, size in enumerate(sizes)]
    bounds = [0, *sorted({min(c, len(every)) for c in cuts}), len(every)]
    log.write(*(b"".join(every[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)))
    count = data.draw(st.integers(0, len(every) + 1))
    try:
        assert log.read(tail=count) == list(range(max(0, len(every) - count), len(every)))
        assert log.read() == list(range(len(every)))
    finally:
        log.close()


def test_since_and_until(log: Log) -> None:
    log.write(lines(0, 500), lines(500, 1000))
    base = 1767225600.0  # 2026-01-01T00:00:00Z
    assert log.read(since=base + 0.7) == list(range(700, 1000))
    assert log.read(until=base + 0.2) == list(range(201))
    assert log.read(since=base + 0.3, until=base + 0.6) == list(range(300, 601))
    assert log.read(since=base + 5) == []
    assert log.read(since=base + 0.99, tail=3) == [997, 998, 999]


def test_lines_that_were_cut_short_are_left_out(log: Log) -> None:
    log.write(line(1) + b'{"log":"ha\n' + line(2) + b"\0\0\0\n" + line(3) + b'{"log":"the last', line(4) + line(5)[:-1])
    assert log.read() == [1, 2, 3, 4]


def test_bytes_that_are_no_text(log: Log) -> None:
    log.write(b'{"log":"\xc3\xa4 1\\n","stream":"stderr","time":"x"}\n')
    (entry,) = rest(log.reader())
    assert (entry.data, entry.stream) == ("\u00e4 1\n".encode(), 2)


def test_compressed_files_are_refused(log: Log) -> None:
    log.write(lines(0, 1))
    log.path.with_name(log.path.name + ".1.gz").write_bytes(b"")
    with pytest.raises(Unsupported):
        log.reader()


def test_following(log: Log) -> None:
    log.write(line(0))
    log.ended = False
    reader = log.reader(follow=True)
    assert numbers(reader.read()) == [0]
    assert (reader.read(), reader.finished) == ([], False)
    with log.path.open("ab") as file:
        file.write(line(1) + line(2)[:10])
    assert select.select([reader.fileno()], [], [], 10)[0]
    assert numbers(reader.read()) == [1]
    with log.path.open("ab") as file:
        file.write(line(2)[10:])
    assert select.select([reader.fileno()], [], [], 10)[0]
    assert numbers(reader.read()) == [2]
    log.ended = True
    assert (reader.read(), reader.finished) == ([], True)


def test_following_across_rotations(log: Log) -> None:
    log.write(line(0))
    log.ended = False
    reader = log.reader(follow=True, tail=0)
    assert reader.read() == []
    with log.path.open("ab") as file:
        file.write(line(1))
    log.path.rename(log.path.with_name(log.path.name + ".1"))
    log.path.write_bytes(line(2))
    found = reader.read()
    while len(found) < 2:
        assert select.select([reader.fileno()], [], [], 10)[0]
        found += reader.read()
    assert numbers(found) == [1, 2]
    log.ended = True
    with log.path.open("ab") as file:
        file.write(line(3))
    assert numbers(rest(reader)) == [3]


def test_following_begins_with_what_is_there(log: Log) -> None:
    log.write(lines(0, 5), lines(5, 10))
    log.ended = False
    assert numbers(log.reader(follow=True, tail=7).read()) == list(range(3, 10))
