"""Log drivers: Kubernetes' lines, compressed rotations, the journal's and syslog's protocols, on real sockets."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.errors import Invalid, Unavailable
from proa.monitor import remote_log
from proa.monitor.file_log import CriLayout, FileLog, JsonLayout
from proa.monitor.log_drivers import check_log, open_log
from proa.monitor.logs import LINE_LIMIT_BYTES, LineLog
from proa.monitor.protocol import LogOptions
from proa.monitor.remote_log import RemoteLog, journal_message

ID = "c" * 64


def test_cri_lines(tmp_path: Path) -> None:
    log = open_log(LogOptions(driver="cri"), str(tmp_path), ID)
    assert log is not None
    log.write("stdout", b"one\n\xfftwo\nbegun")
    log.write("stderr", b"x" * (LINE_LIMIT_BYTES + 1) + b"\n")
    log.close()
    found = (tmp_path / f"{ID}-cri.log").read_bytes().splitlines()
    assert [line.split(b" ", 1)[1] for line in found] == [
        *(b"stdout F one", b"stdout F \xfftwo", b"stderr P " + b"x" * LINE_LIMIT_BYTES, b"stderr F x"),
        b"stdout P begun",
    ]
    assert all(re.match(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", line) for line in found)


def test_attributes_are_in_each_record(tmp_path: Path) -> None:
    log = open_log(LogOptions(attributes={"b": 'q"', "a": "1"}), str(tmp_path), ID)
    assert log is not None
    log.write("stdout", b"one\ntwo\n")
    log.close()
    records = [json.loads(line) for line in (tmp_path / f"{ID}-json.log").read_bytes().splitlines()]
    assert [r["attrs"] for r in records] == [{"a": "1", "b": 'q"'}] * 2
    assert list(records[0]) == ["log", "stream", "attrs", "time"]


@pytest.mark.parametrize("max_file", [2, 3, 50])
def test_what_was_rotated_is_compressed(tmp_path: Path, max_file: int) -> None:
    path = tmp_path / "log"
    log = LineLog(FileLog(str(path), CriLayout(), 2000, max_file, compress=True))
    for number in range(1000):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    names = sorted((p.name for p in tmp_path.iterdir()), key=lambda n: int([*n.split("."), "9999"][1]))
    assert names[-1] == "log"
    assert len(names) == min(max_file, len(names))
    assert all(name.endswith(".gz") for name in names[:-1])
    text = b"".join(gzip.decompress((tmp_path / name).read_bytes()) for name in names[:-1]) + path.read_bytes()
    kept = [int(line.split()[-1]) for line in text.splitlines()]
    assert kept == list(range(1000 - len(kept), 1000))


def test_a_compression_that_was_interrupted_is_done_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "log"
    (tmp_path / "log.7").write_text("old\n")
    (tmp_path / "log.7.part").write_bytes(b"half")
    log = LineLog(FileLog(str(path), CriLayout(), 2000, 5, compress=True))
    log.write("stdout", b"new\n")
    log.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.7.gz"]
    assert gzip.decompress((tmp_path / "log.7.gz").read_bytes()) == b"old\n"


def test_long_lines_and_short_ones_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    text = b"".join(b"%d " % n + b"y" * (n * 997 % 40_000) + b"\n" for n in range(60))
    log = LineLog(FileLog(str(path), JsonLayout(), 0, 1))
    for start in range(0, len(text), 131_072):
        log.write("stdout", text[start : start + 131_072])
    log.close()
    assert "".join(json.loads(line)["log"] for line in path.read_bytes().splitlines()).encode() == text


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(10)
        yield sock, f"unixgram://{tmp_path}/socket"


def test_the_journal_s_protocol(receiver: tuple[socket.socket, str]) -> None:
    sock, address = receiver
    log = LineLog(RemoteLog(address, journal_message({"CONTAINER_NAME": "web", "NOTE": "a\nb"}), must_answer=True))
    log.write("stderr", b"oops\n")
    log.write("stdout", b"z" * LINE_LIMIT_BYTES + b"rest\n")
    first, second, third = (sock.recv(1 << 17) for _ in range(3))
    assert first.startswith(b"CONTAINER_NAME=web\nNOTE\n\3\0\0\0\0\0\0\0a\nb\nPRIORITY=3\n")
    assert first.endswith(b"\nMESSAGE=oops\n")
    assert b"CONTAINER_PARTIAL_MESSAGE=true\n" in second
    assert second.endswith(b"MESSAGE=" + b"z" * LINE_LIMIT_BYTES + b"\n")
    assert third.endswith(b"PRIORITY=6\n" + third[third.index(b"SYSLOG") :])
    assert third.endswith(b"MESSAGE=rest\n")
    log.close()


@pytest.mark.parametrize(
    ("layout", "pattern"),
    [
        ("unix", rb"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d tag\[\d+\]: text"),
        ("rfc3164", rb"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [^ ]+ tag\[\d+\]: text"),
        ("rfc5424", rb"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [^ ]+ tag \d+ tag - text"),
        ("rfc5424micro", rb"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [^ ]+ tag \d+ tag - text"),
    ],
)
def test_syslog_s_formats(receiver: tuple[socket.socket, str], tmp_path: Path, layout: str, pattern: bytes) -> None:
    sock, address = receiver
    options = LogOptions(driver="syslog", address=address, format=layout, tag="tag")
    log = open_log(options, str(tmp_path), ID)
    assert log is not None
    log.write("stdout", b"text\n")
    log.close()
    assert re.fullmatch(pattern, sock.recv(1000))
    assert (tmp_path / f"{ID}-local.log").read_bytes().endswith(b"stdout F text\n")  # for `logs`


def test_syslog_by_tcp(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        received: list[bytes] = []

        def receive() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(1000):
                    received.append(data)

        thread = threading.Thread(target=receive)
        thread.start()
        log = open_log(LogOptions(driver="syslog", address=address, format="rfc5424", max_file=0), str(tmp_path), ID)
        assert log is not None
        log.write("stdout", b"one\ntwo\n")
        log.close()
        thread.join(10)
    assert [line.rsplit(b" - ", 1)[1] for line in b"".join(received).splitlines()] == [b"one", b"two"]


def test_a_receiver_that_went_away_delays_nothing_and_hears_of_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_log, "_PAUSE_S", 0.0)
    path = tmp_path / "socket"
    options = LogOptions(driver="syslog", address=f"unixgram://{path}", max_file=0)
    with pytest.raises(Unavailable, match="failed to initialize logging driver"):
        check_log(options, str(tmp_path), ID)
    log = open_log(options, str(tmp_path), ID)
    assert log is not None
    log.write("stdout", b"lost\nlost too\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(10)
        log.write("stdout", b"heard\n")
        assert b"2 messages were dropped" in sock.recv(1000)
        assert sock.recv(1000).endswith(b"heard")
    log.close()


def test_a_driver_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="unknown log driver"):
        check_log(LogOptions(driver="nope"), str(tmp_path), ID)
