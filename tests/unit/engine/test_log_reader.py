"""Reading logs back: streams, rotations, tail, since and until, following, damage."""

from __future__ import annotations

import gzip
import json
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proa.engine import log_files, logs
from proa.engine.clock import parse_rfc3339_ns
from proa.engine.logs import LogReader
from proa.engine.types import LogRequest
from proa.monitor.file_log import FileLog, JsonLayout
from proa.monitor.logs import LineLog, log_path


class Log:
    """A container's log and its readers."""

    def __init__(self, directory: Path) -> None:
        self.path = Path(log_path(str(directory), "c" * 64))
        self.ended = True

    def write(self, *texts: str, stream: str = "stdout", second: int = 0, to: Path | None = None) -> None:
        with open(to or self.path, "ab") as file:
            for n, text in enumerate(texts):
                entry = {"log": text, "stream": stream, "time": stamp(second + n)}
                file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")

    def rotated(self, number: int) -> Path:
        return Path(f"{self.path}.{number}")

    @contextmanager
    def reader(self, **request: Any) -> Iterator[LogReader]:
        reader = LogReader(self.path, LogRequest(**request), lambda: self.ended)
        try:
            yield reader
        finally:
            reader.close()

    def read(self, **request: Any) -> list[str]:
        with self.reader(**request) as reader:
            return everything(reader)


def stamp(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}.000000001Z"


def everything(reader: LogReader) -> list[str]:
    out: list[str] = []
    while not reader.finished:
        out += lines(reader)
    return out


def lines(reader: LogReader) -> list[str]:
    return [entry.data.decode().rstrip("\n") for entry in reader.read()]


def readable(reader: LogReader) -> bool:
    poll = select.poll()
    poll.register(reader.fileno(), select.POLLIN)
    return bool(poll.poll(0))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_entries(log: Log) -> None:
    log.write("out\n", "part")
    log.write("err\n", stream="stderr", second=5)
    with log.reader() as reader:
        found = reader.read()
        assert [(e.stream, e.data) for e in found] == [(1, b"out\n"), (1, b"part"), (2, b"err\n")]
        assert found[2].time == stamp(5)
        assert reader.read() == []
        assert reader.finished
        assert reader.fileno() == -1
    assert log.read(stderr=False) == ["out", "part"]
    assert log.read(stdout=False) == ["err"]


def test_no_log_at_all(log: Log) -> None:
    assert log.read() == []
    assert log.read(tail=5) == []
    assert log.read(follow=True) == []


def test_rotated_files_come_first_and_oldest_first(log: Log) -> None:
    for number in (11, 10, 9):
        log.write(f"{number}\n", to=log.rotated(number))
    log.write("now\n")
    assert log.read() == ["9", "10", "11", "now"]
    assert log.read(tail=2) == ["11", "now"]
    assert log.read(tail=4) == log.read(tail=99) == ["9", "10", "11", "now"]


def test_tail(log: Log) -> None:
    log.write("1\n", "2\n", "3\n")
    log.write("e\n", stream="stderr", second=10)
    log.write('quoted "stream":"stderr"\n', second=20)
    assert log.read(tail=0) == []
    assert log.read(tail=1) == ['quoted "stream":"stderr"']
    assert log.read(tail=3) == ["3", "e", 'quoted "stream":"stderr"']
    assert log.read(tail=2, stderr=False) == ["3", 'quoted "stream":"stderr"']
    assert log.read(tail=2, stdout=False) == ["e"]
    assert log.read(tail=-1) == log.read()


@pytest.mark.parametrize("block", [1, 7, 100, 4096])
def test_tail_whatever_the_blocks(log: Log, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(log_files, "BLOCK", block)
    expected = [f"{n} " + "x" * (n % 7) for n in range(40)]
    log.write(*[f"{line}\n" for line in expected])
    for tail in (0, 1, 2, 39, 40, 41):
        assert log.read(tail=tail) == expected[40 - min(tail, 40) :]


def test_since_and_until(log: Log) -> None:
    log.write(*[f"{n}\n" for n in range(10)])

    def at(second: int) -> int:
        return parse_rfc3339_ns(stamp(second))

    assert log.read(since_ns=at(7)) == ["7", "8", "9"]
    assert log.read(until_ns=at(2)) == ["0", "1", "2"]
    assert log.read(since_ns=at(3), until_ns=at(4)) == ["3", "4"]
    assert log.read(since_ns=at(20)) == []
    log.ended = False
    assert log.read(until_ns=at(2), follow=True) == ["0", "1", "2"]


def test_following(log: Log) -> None:
    log.ended = False
    log.write("old\n", "last\n")
    with log.reader(follow=True, tail=1) as reader:
        assert lines(reader) == ["last"]
        assert lines(reader) == []
        assert not readable(reader)
        log.write("new\n")
        assert readable(reader)
        assert lines(reader) == ["new"]
        assert not reader.finished
        log.write("very last\n")
        log.ended = True
        assert everything(reader) == ["very last"]


def test_following_from_before_the_first_line(log: Log) -> None:
    log.ended = False
    with log.reader(follow=True) as reader:
        assert lines(reader) == []
        log.write("first\n")
        assert readable(reader)
        assert lines(reader) == ["first"]


def test_following_from_now_on(log: Log) -> None:
    log.ended = False
    log.write("old\n")
    with log.reader(follow=True, tail=0) as reader:
        assert lines(reader) == []
        log.write("new\n")
        assert lines(reader) == ["new"]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_following_across_rotations(log: Log, rotations: int, compressed: bool) -> None:
    """However often the file was rotated since the reader looked last."""
    log.ended = False
    log.write("0\n")
    with log.reader(follow=True) as reader:
        assert lines(reader) == ["0"]
        log.write("more\n")
        for n in range(rotations):
            os.rename(log.path, log.rotated(n + 1))
            if n == 0 and compressed:
                log.rotated(1).with_name(log.rotated(1).name + ".gz").write_bytes(
                    gzip.compress(log.rotated(1).read_bytes())
                )
                log.rotated(1).unlink()
            log.write(f"after {n}\n")
        assert readable(reader)
        got = lines(reader)
        while more := lines(reader):
            got += more
        assert got == ["more", *[f"after {n}" for n in range(rotations)]]


def test_following_a_single_file_that_is_begun_again(log: Log) -> None:
    log.ended = False
    log.write("long " * 100 + "\n")
    with log.reader(follow=True) as reader:
        assert len(lines(reader)) == 1
        os.truncate(log.path, 0)
        log.write("again\n")
        assert lines(reader) == ["again"]


def test_half_a_line_waits_for_the_rest(log: Log) -> None:
    log.ended = False
    log.write("whole\n")
    data = log.path.read_bytes()
    log.path.write_bytes(data + data[:20])
    with log.reader(follow=True) as reader:
        assert lines(reader) == ["whole"]
        log.path.write_bytes(data + data)
        assert lines(reader) == ["whole"]


def test_damaged_lines_cost_only_themselves(log: Log) -> None:
    log.write("before\n")
    with open(log.path, "ab") as file:
        file.write(b'{"log":"cut\n\0\0\0\n[]\n{"log":1}\n\xff\xfe\n\n{}\n')
    log.write("after\n")
    log.write("\ud800", stream="stdnull")
    assert [line for line in log.read() if line] == ["before", "after"]
    assert "after" in log.read(tail=3)


def test_a_long_log_is_read_in_pieces(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "CHUNK", 1000)
    log.write(*[f"{n} {'x' * 50}\n" for n in range(60)] * 5)
    with log.reader() as reader:
        first = lines(reader)
        assert 0 < len(first) < 300
        assert len(first + everything(reader)) == 300


TEXTS = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=30)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(-1, 50), st.sampled_from([0, 300, 2000]), st.sampled_from(["both", "stdout", "stderr"]))
def test_what_the_monitor_wrote_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, texts: Any, tail: int, max_size: int, streams: str
) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    writer = LineLog(FileLog(str(log.path), JsonLayout(), max_size, 1000, compress=tail % 2 == 0))
    expected = []
    for stream, text in texts:
        line = (text.replace("\n", " ") + "\n").encode()
        writer.write(stream, line)
        if streams in ("both", stream):
            expected.append((stream, line))
    writer.close()
    with log.reader(stdout=streams != "stderr", stderr=streams != "stdout", tail=tail) as reader:
        found = []
        while not reader.finished:
            found += [({1: "stdout", 2: "stderr"}[e.stream], e.data) for e in reader.read()]
    assert found == (expected if tail < 0 else expected[len(expected) - min(tail, len(expected)) :])
