from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proa.cli.mounts import parse_mount
from proa.cli.values import (
    byte_size,
    duration_ns,
    key_values,
    nano_cpus,
    published_ports,
    ulimit,
    variables,
    variables_of_files,
)
from proa.errors import Invalid


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("512m", 512 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30), ("10kb", 10240), ("-1", -1), ("1b", 1)],
)
def test_sizes(text: str, size: int) -> None:
    assert byte_size(text, "memory") == size


@pytest.mark.parametrize("text", ["m", "1x", "1_0m", "٣m", "-5m", "1 2", "0x10", "1e3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Invalid):
        byte_size(text, "memory")


@pytest.mark.parametrize(("text", "number"), [("1.5", 1_500_000_000), (".5", 500_000_000), ("2", 2_000_000_000)])
def test_cpus(text: str, number: int) -> None:
    assert nano_cpus(text) == number


@pytest.mark.parametrize("text", ["", ".", "-1", "1e3", "1_0", "0.1234567891", "two"])
def test_what_is_no_number_of_cpus(text: str) -> None:
    with pytest.raises(Invalid):
        nano_cpus(text)


@pytest.mark.parametrize(
    ("text", "number"), [("30s", 30_000_000_000), ("1m30s", 90_000_000_000), ("1.5ms", 1_500_000), ("0", 0)]
)
def test_durations(text: str, number: int) -> None:
    assert duration_ns(text, "health-interval") == number


@pytest.mark.parametrize("text", ["30", "s", "1x", "1m-5s", "1_0s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(Invalid):
        duration_ns(text, "health-interval")


def test_ulimits() -> None:
    assert ulimit("nofile=1024:2048") == {"Name": "nofile", "Soft": 1024, "Hard": 2048}
    assert ulimit("core=-1") == {"Name": "core", "Soft": -1, "Hard": -1}
    for text in ("nofile", "=1", "nofile=a", "nofile=1:x", "nofile=-2"):
        with pytest.raises(Invalid):
            ulimit(text)


@pytest.mark.parametrize(
    ("text", "bindings"),
    [
        ("80", {"80/tcp": [{"HostIp": "", "HostPort": ""}]}),
        ("8080:80", {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
        ("127.0.0.1:8080:80/udp", {"80/udp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}),
        ("127.0.0.1::80", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
        ("[::1]:80:80", {"80/tcp": [{"HostIp": "::1", "HostPort": "80"}]}),
        ("8000-8001:80", {"80/tcp": [{"HostIp": "", "HostPort": "8000-8001"}]}),
        (
            "8000-8001:80-81",
            {"80/tcp": [{"HostIp": "", "HostPort": "8000"}], "81/tcp": [{"HostIp": "", "HostPort": "8001"}]},
        ),
    ],
)
def test_published_ports(text: str, bindings: dict[str, Any]) -> None:
    exposed, bound = published_ports([text])
    assert bound == bindings
    assert exposed == {port: {} for port in bindings}


@pytest.mark.parametrize("text", ["", "x", "80/icmp", "99999", "8000-8002:80-81", "80-79", "\uff18\uff10"])
def test_what_cannot_be_published(text: str) -> None:
    with pytest.raises(Invalid):
        published_ports([text])


def test_variables_take_our_own_value_when_they_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROA_TEST_OWN", "mine")
    monkeypatch.delenv("PROA_TEST_ABSENT", raising=False)
    assert variables(["A=1", "B=", "PROA_TEST_OWN", "PROA_TEST_ABSENT"]) == ["A=1", "B=", "PROA_TEST_OWN=mine"]
    with pytest.raises(Invalid):
        variables(["=x"])


def test_files_of_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROA_TEST_OWN", "mine")
    path = tmp_path / "env"
    path.write_bytes("\ufeff# comment\n\n  A=1 # kept\r\nB='q'\nPROA_TEST_OWN\nABSENT_ONE\n".encode())
    assert variables_of_files([str(path)], "env-file") == ["A=1 # kept", "B='q'", "PROA_TEST_OWN=mine"]
    path.write_text("A B=1\n")
    with pytest.raises(Invalid, match="line 1: variable `A B` contains whitespaces"):
        variables_of_files([str(path)], "env-file")
    path.write_text("X=1\n=1\n")
    with pytest.raises(Invalid, match="line 2: no variable name"):
        variables_of_files([str(path)], "env-file")
    path.write_bytes(b"A=\xff\n")
    with pytest.raises(Invalid, match="not UTF-8"):
        variables_of_files([str(path)], "env-file")
    with pytest.raises(Invalid, match="No such file"):
        variables_of_files([str(tmp_path / "none")], "env-file")


def test_key_values() -> None:
    assert key_values(["a=1", "b", "c=x=y"], "label") == {"a": "1", "b": "", "c": "x=y"}
    with pytest.raises(Invalid):
        key_values(["b"], "sysctl", need_value=True)


def test_mounts() -> None:
    assert parse_mount("type=bind,source=/a,target=/b,readonly") == {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "ReadOnly": True,
    }
    assert parse_mount('type=bind,"src=/a,b",dst=/c')["Source"] == "/a,b"
    assert parse_mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777")["TmpfsOptions"] == {
        "SizeBytes": 1 << 20,
        "Mode": 0o1777,
    }
    assert parse_mount("target=/v")["Type"] == "volume"
    for text in ("type=bind,target=/b", "type=x,target=/b", "type=bind,source=/a", "target=/b,what=1"):
        with pytest.raises(Invalid):
            parse_mount(text)
