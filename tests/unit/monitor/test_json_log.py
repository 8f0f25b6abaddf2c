"""The json-file log: Docker's format, long lines, rotation, a full disk."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.monitor import file_log
from proa.monitor.file_log import FileLog, JsonLayout
from proa.monitor.logs import LINE_LIMIT_BYTES, LineLog, rfc3339


def json_log(path: str, max_size: int, max_file: int) -> LineLog:
    return LineLog(FileLog(path, JsonLayout(), max_size, max_file))


def records(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c-json.log"


def test_one_record_per_line_with_stream_and_time(path: Path) -> None:
    log = json_log(str(path), 0, 3)
    log.write("stdout", b"one\ntwo\n")
    log.write("stderr", b"oops\n")
    log.close()
    assert [(r["log"], r["stream"]) for r in records(path)] == [
        ("one\n", "stdout"),
        ("two\n", "stdout"),
        ("oops\n", "stderr"),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", records(path)[0]["time"])
    assert path.stat().st_mode & 0o777 == 0o600


def test_time_is_rfc3339_in_nanoseconds() -> None:
    assert rfc3339(1_700_000_000_000_000_007) == "2023-11-14T22:13:20.000000007Z"


def test_a_line_may_come_in_pieces(path: Path) -> None:
    log = json_log(str(path), 0, 3)
    for piece in (b"hel", b"lo", b"\nwor", b"ld\n"):
        log.write("stdout", piece)
    log.close()
    assert [r["log"] for r in records(path)] == ["hello\n", "world\n"]


def test_streams_do_not_mix_unfinished_lines(path: Path) -> None:
    log = json_log(str(path), 0, 3)
    log.write("stdout", b"a")
    log.write("stderr", b"b")
    log.write("stdout", b"A\n")
    log.finish("stderr")
    log.close()
    assert [(r["log"], r["stream"]) for r in records(path)] == [("aA\n", "stdout"), ("b", "stderr")]


def test_the_last_line_without_newline_is_kept(path: Path) -> None:
    log = json_log(str(path), 0, 3)
    log.write("stdout", b"prompt> ")
    assert path.read_bytes() == b""
    log.close()
    assert [r["log"] for r in records(path)] == ["prompt> "]


@pytest.mark.parametrize("size", [LINE_LIMIT_BYTES - 1, LINE_LIMIT_BYTES, LINE_LIMIT_BYTES + 1, 3 * LINE_LIMIT_BYTES])
def test_long_lines_are_split_without_newline(path: Path, size: int) -> None:
    log = json_log(str(path), 0, 3)
    log.write("stdout", b"x" * size + b"\n")
    log.close()
    texts = [r["log"] for r in records(path)]
    assert "".join(texts) == "x" * size + "\n"
    assert max(len(t) for t in texts) <= LINE_LIMIT_BYTES + 1
    assert all("\n" not in t for t in texts[:-1])


def test_splitting_a_long_line_keeps_characters_whole(path: Path) -> None:
    line = "a" + "\u20ac" * LINE_LIMIT_BYTES + "\n"
    log = json_log(str(path), 0, 3)
    log.write("stdout", line.encode())
    log.close()
    assert "".join(r["log"] for r in records(path)) == line


@given(st.lists(st.binary(max_size=200) | st.text(max_size=50).map(str.encode), max_size=20))
def test_any_output_is_logged_as_decoded_text(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("log") / "c-json.log"
    log = json_log(str(path), 0, 3)
    for chunk in chunks:
        log.write("stdout", chunk)
    log.close()
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    text = "".join(json.loads(line)["log"] for line in lines)
    expected = b"".join(chunks)
    assert text == "".join(p.decode("utf-8", "replace") for p in re.split(rb"(?<=\n)", expected))


def test_rotation_keeps_max_file_files_and_loses_only_the_oldest(path: Path) -> None:
    log = json_log(str(path), 4000, 3)
    for number in range(300):
        log.write("stdout", b"line %04d\n" % number)
    log.close()
    assert sorted(p.name for p in path.parent.iterdir()) == ["c-json.log", "c-json.log.4", "c-json.log.5"]
    kept = [r["log"] for name in ("c-json.log.4", "c-json.log.5", "c-json.log") for r in records(path.parent / name)]
    assert kept == [f"line {n:04d}\n" for n in range(300 - len(kept), 300)]
    for name in ("c-json.log.4", "c-json.log.5"):
        assert 4000 <= (path.parent / name).stat().st_size < 4200


def test_bulk_output_is_rotated_within_one_write(path: Path) -> None:
    log = json_log(str(path), 10_000, 1000)
    log.write("stdout", b"".join(b"%06d\n" % n for n in range(5000)))
    log.close()
    files = sorted(path.parent.iterdir(), key=lambda p: int(p.suffix[1:]) if p.suffix != ".log" else 9999)
    assert all(p.stat().st_size < 10_200 for p in files)
    assert [r["log"] for p in files for r in records(p)] == [f"{n:06d}\n" for n in range(5000)]


def test_a_single_file_is_truncated(path: Path) -> None:
    log = json_log(str(path), 1000, 1)
    for number in range(100):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    assert [p.name for p in path.parent.iterdir()] == ["c-json.log"]
    assert records(path)[-1]["log"] == "line 99\n"


def test_a_restart_appends(path: Path) -> None:
    for text in (b"first\n", b"second\n"):
        log = json_log(str(path), 0, 3)
        log.write("stdout", text)
        log.close()
    assert [r["log"] for r in records(path)] == ["first\n", "second\n"]


def test_a_full_disk_drops_lines_and_says_so_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = json_log(str(path), 0, 3)
    log.write("stdout", b"before\n")
    write = os.write
    room = [30]

    def full(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        size, room[0] = room[0], 0
        return write(fd, data[:size])

    monkeypatch.setattr(file_log.os, "write", full)
    log.write("stdout", b"lost one\n")
    log.write("stdout", b"lost two\n")
    monkeypatch.setattr(file_log.os, "write", write)
    log.write("stdout", b"after\n")
    log.close()
    texts = [r["log"] for r in records(path)]  # every line is whole
    assert texts[0] == "before\n"
    assert texts[-1] == "after\n"
    assert len(texts) == 3
    assert "dropped" in texts[1]


def test_a_vanished_directory_is_no_reason_to_stop(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    log = json_log(str(directory / "c-json.log"), 100, 3)
    (directory / "c-json.log").unlink()
    directory.rmdir()
    for _ in range(10):
        log.write("stdout", b"into the void\n")
    log.close()
