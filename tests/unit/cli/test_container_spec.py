from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from proa.cli.container_rows import RUN_ROWS
from proa.cli.container_spec import create_document
from proa.cli.options import parse
from proa.errors import Invalid


def document(*arguments: str, detach: bool = False) -> dict[str, Any]:
    options, words = parse(RUN_ROWS, [*arguments, "image", "cmd"], interspersed=False)
    assert options is not None
    return create_document(options, words[0], words[1:], detach=detach)


def test_only_what_was_asked_for_is_sent() -> None:
    assert document() == {
        "Image": "image",
        "Cmd": ["cmd"],
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": False,
        "StdinOnce": False,
        "Tty": False,
        "HostConfig": {},
    }


def test_interactive_containers_end_with_their_input() -> None:
    sent = document("-it")
    assert (sent["OpenStdin"], sent["StdinOnce"], sent["AttachStdin"], sent["Tty"]) == (True, True, True, True)
    sent = document("-i", "-d", detach=True)
    assert (sent["OpenStdin"], sent["StdinOnce"], sent["AttachStdin"], sent["AttachStdout"]) == (
        True,
        False,
        False,
        False,
    )


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (("--memory", "64m"), "Memory", 64 << 20),
        (("--memory-swap=-1",), "MemorySwap", -1),
        (("--shm-size=1g",), "ShmSize", 1 << 30),
        (("--cpus", "0.5"), "NanoCpus", 500_000_000),
        (("--pids-limit=-1",), "PidsLimit", -1),
        (("--cap-add", "NET_ADMIN", "--cap-add=SYS_TIME"), "CapAdd", ["NET_ADMIN", "SYS_TIME"]),
        (("--cap-drop=ALL",), "CapDrop", ["ALL"]),
        (("--network", "none"), "NetworkMode", "none"),
        (("--net=host",), "NetworkMode", "host"),
        (("--read-only",), "ReadonlyRootfs", True),
        (("--privileged",), "Privileged", True),
        (("--init",), "Init", True),
        (("--rm",), "AutoRemove", True),
        (("-P",), "PublishAllPorts", True),
        (("-v", "/a:/b:ro"), "Binds", ["/a:/b:ro"]),
        (("-v", "name:/b"), "Binds", ["name:/b"]),
        (("--tmpfs", "/t:size=1m", "--tmpfs=/u"), "Tmpfs", {"/t": "size=1m", "/u": ""}),
        (("--security-opt", "no-new-privileges"), "SecurityOpt", ["no-new-privileges"]),
        (("--restart=on-failure:3",), "RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
        (("--log-opt", "max-size=1m"), "LogConfig", {"Type": "", "Config": {"max-size": "1m"}}),
        (("--sysctl", "net.core.somaxconn=1"), "Sysctls", {"net.core.somaxconn": "1"}),
        (("--add-host", "a:1.2.3.4"), "ExtraHosts", ["a:1.2.3.4"]),
        (("--pid=host",), "PidMode", "host"),
        (("--ulimit", "nofile=1:2"), "Ulimits", [{"Name": "nofile", "Soft": 1, "Hard": 2}]),
        (
            ("--device", "/dev/null:/dev/x:r"),
            "Devices",
            [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}],
        ),
    ],
)
def test_host_configuration(arguments: tuple[str, ...], key: str, value: Any) -> None:
    assert document(*arguments)["HostConfig"][key] == value


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (("-u", "1:2"), "User", "1:2"),
        (("-w", "/x"), "WorkingDir", "/x"),
        (("-h", "host"), "Hostname", "host"),
        (("--entrypoint", "sh"), "Entrypoint", ["sh"]),
        (("--entrypoint=",), "Entrypoint", [""]),
        (("-l", "a=1", "--label", "b"), "Labels", {"a": "1", "b": ""}),
        (("-e", "A=1"), "Env", ["A=1"]),
        (("--stop-signal=INT",), "StopSignal", "INT"),
        (("--stop-timeout=3",), "StopTimeout", 3),
        (("-v", "/data"), "Volumes", {"/data": {}}),
        (("--expose", "1000-1001/udp"), "ExposedPorts", {"1000/udp": {}, "1001/udp": {}}),
        (("--no-healthcheck",), "Healthcheck", {"Test": ["NONE"]}),
        (
            ("--health-cmd", "true", "--health-interval=5s"),
            "Healthcheck",
            {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000},
        ),
    ],
)
def test_configuration(arguments: tuple[str, ...], key: str, value: Any) -> None:
    assert document(*arguments)[key] == value


def test_files_of_variables_come_before_single_ones(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("A=file\n")
    assert document("-e", "A=option", "--env-file", str(tmp_path / "f"))["Env"] == ["A=file", "A=option"]


def test_relative_volumes_are_of_this_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert document("-v", "./a/../b:/c")["HostConfig"]["Binds"] == [f"{os.getcwd()}/b:/c"]


def test_a_seccomp_profile_travels_as_its_text(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"defaultAction":"SCMP_ACT_ALLOW"}')
    sent = document("--security-opt", f"seccomp={tmp_path}/p.json")
    assert sent["HostConfig"]["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']
    assert document("--security-opt=seccomp=unconfined")["HostConfig"]["SecurityOpt"] == ["seccomp=unconfined"]
    with pytest.raises(Invalid):
        document("--security-opt=seccomp=/nowhere")


def test_addresses_and_aliases_go_to_the_network() -> None:
    sent = document("--network", "mine", "--ip=10.0.0.5", "--network-alias", "a")
    endpoint = {"IPAMConfig": {"IPv4Address": "10.0.0.5"}, "Aliases": ["a"]}
    assert sent["NetworkingConfig"] == {"EndpointsConfig": {"mine": endpoint}}


@pytest.mark.parametrize(
    "arguments",
    [
        ("-a", "nothing"),
        ("--no-healthcheck", "--health-cmd=x"),
        ("--restart=on-failure:x",),
        ("--device=/dev/x:/y:q",),
        ("-p", "no"),
        ("--memory=lots",),
    ],
)
def test_what_cannot_be_meant(arguments: tuple[str, ...]) -> None:
    with pytest.raises(Invalid):
        document(*arguments)


def test_attach_and_detach_exclude_each_other() -> None:
    with pytest.raises(Invalid):
        document("-a", "stdout", detach=True)
