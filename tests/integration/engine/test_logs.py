"""Logs through the engine: every driver, rotated and compressed while followed, details, what is refused."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest
from engines import PrivateEngine, until

pytestmark = pytest.mark.root

NUMBERS = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"


def log_files(box: PrivateEngine, name: str) -> list[str]:
    return sorted(p.name[65:] for p in Path(box.root / "containers" / box.inspect(name)["Id"]).glob("*.log*"))


@pytest.mark.parametrize("driver", ["json-file", "local", "cri"])
def test_a_log_that_was_rotated_and_compressed_is_read_whole(box: PrivateEngine, driver: str) -> None:
    options = ("--log-driver", driver, "--log-opt", "max-size=20k", "--log-opt", "max-file=100")
    box.proa("run", "--name", driver, "--network", "none", *options, "busybox", "sh", "-c", f"{NUMBERS}; echo err >&2")
    layout = "json" if driver == "json-file" else driver
    names = log_files(box, driver)
    assert f"{layout}.log" in names
    assert len([n for n in names if n.endswith(".gz")]) == len(names) - 1 > 3
    expected = [f"line {n}" for n in range(3000)]
    read = box.proa("logs", driver)
    assert read.stdout.decode().splitlines() == expected
    assert read.stderr == b"err\n"
    assert box.out("logs", "--tail", "2000", driver, check=True).splitlines() == expected[1001:]
    stamped = box.docker("logs", "-t", "--tail", "1", driver).stderr.decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{9}Z err\n", stamped)


def test_following_through_rotations(box: PrivateEngine) -> None:
    script = f"read x; {NUMBERS}"
    options = ("--log-opt", "max-size=10k", "--log-opt", "max-file=200")
    box.proa("run", "-di", "--name", "following", "--network", "none", *options, "busybox", "sh", "-c", script)
    follower = box.popen("logs", "-f", "following")
    with box.popen("attach", "following", stdin=subprocess.PIPE) as attached:
        attached.communicate(b"go\n", timeout=30)
    out, _ = follower.communicate(timeout=30)
    assert out.decode().splitlines() == [f"line {n}" for n in range(3000)]


def test_details(box: PrivateEngine) -> None:
    options = ("-l", "app=a b", "-e", "MODE=on", "--log-opt", "labels=app", "--log-opt", "env=MODE")
    box.proa("run", "--name", "detailed", "--network", "none", *options, "busybox", "echo", "text")
    for program in (box.proa, box.docker):
        assert program("logs", "--details", "detailed").stdout == b"MODE=on,app=a+b text\n"
        assert program("logs", "detailed").stdout == b"text\n"


def test_syslog_and_what_logs_tells_of_it(box: PrivateEngine, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "log"))
        receiver.settimeout(20)
        address = f"syslog-address=unixgram://{tmp_path}/log"
        options = ("--log-driver", "syslog", "--log-opt", address, "--log-opt", "tag={{.Name}}")
        box.proa("run", "--name", "sys", "--network", "none", *options, "busybox", "sh", "-c", "echo out; echo err >&2")
        received = sorted(receiver.recv(1000) for _ in range(2))
    assert re.fullmatch(rb"<27>.* sys\[\d+\]: err", received[0])
    assert re.fullmatch(rb"<30>.* sys\[\d+\]: out", received[1])
    assert box.proa("logs", "sys").stdout == b"out\n"
    gone = box.proa("run", "--name", "sys2", "--network", "none", *options, "busybox", "true", check=False)
    assert gone.returncode == 125
    assert b"failed to initialize logging driver" in gone.stderr


def test_no_log(box: PrivateEngine) -> None:
    box.proa("run", "--name", "nolog", "--network", "none", "--log-driver", "none", "busybox", "echo", "text")
    refused = box.docker("logs", "nolog", check=False)
    assert b"configured logging driver does not support reading" in refused.stderr
    assert log_files(box, "nolog") == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--log-driver", "nope"), "logger: no log driver named 'nope' is registered"),
        (("--log-opt", "nope=1"), "unknown log opt 'nope' for json-file log driver"),
        (("--log-opt", "max-size=x"), "invalid size: 'x'"),
    ],
)
def test_wrong_options_make_no_container(box: PrivateEngine, options: tuple[str, ...], text: str) -> None:
    refused = box.docker("create", "--name", "wrong", *options, "busybox", "true", check=False)
    assert refused.returncode == 1
    assert text in refused.stderr.decode()
    assert "wrong" not in box.containers()


def test_a_slow_log_is_compressed_when_it_falls_silent(box: PrivateEngine) -> None:
    """By the short-lived process that writes it: a container without company has no other."""
    script = f"{NUMBERS}; sleep 1000"
    options = ("--log-opt", "max-size=20k", "--log-opt", "max-file=100")
    box.proa("run", "-d", "--name", "quiet", "--network", "none", *options, "busybox", "sh", "-c", script)
    directory = Path(box.root / "containers" / box.inspect("quiet")["Id"])
    until(lambda: "line 2999" in box.out("logs", "--tail", "1", "quiet"))
    until(lambda: not [p for p in directory.iterdir() if re.search(r"\.log\.\d+$", p.name)])
    assert json.loads((directory / "container.json").read_bytes())


def test_the_driver_of_containers_that_name_none(engine: PrivateEngine, busybox_tar: Path) -> None:
    config = engine.directory / "proa.toml"
    config.write_text('log-driver = "cri"\n[log-opts]\nmax-size = "5m"\n')
    engine.env["PROA_CONFIG"] = str(config)
    engine.proa("import", str(busybox_tar), "busybox")
    engine.docker("run", "--name", "open", "--log-opt", "max-file=2", "busybox", "echo", "a line")
    engine.docker("run", "--name", "own", "--log-driver", "json-file", "busybox", "echo", "a line")
    shown = engine.inspect("open")
    assert shown["HostConfig"]["LogConfig"] == {"Type": "cri", "Config": {"max-size": "5m", "max-file": "2"}}
    assert Path(shown["LogPath"]).read_text().endswith(" stdout F a line\n")
    assert engine.inspect("own")["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {}}
    assert engine.out("logs", "open") == engine.out("logs", "own") == "a line"
    assert engine.docker("info", "--format", "{{.LoggingDriver}}").stdout == b"cri\n"
