"""Finding and running the command: exit statuses, typed errors, working directory, users."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from proa.errors import Denied, Internal, Invalid, NotFound, ProaError


def test_the_command_is_process_one_and_its_status_is_reported(containers: Any) -> None:
    assert containers.sh("echo $$; exit 7").stdout == "1\n"
    assert containers.sh("exit 7").status == 7
    pid = containers.start("sleep", "100")
    containers.call("signal", pid, 9)
    assert containers.wait(pid).status == 137


@pytest.mark.parametrize(
    ("command", "kind", "code", "text"),
    [
        ("nosuch", NotFound, "command-not-found", 'exec: "nosuch": executable file not found in $PATH'),
        ("/no/such", NotFound, "command-not-found", 'exec: "/no/such": no such file or directory'),
        ("/etc/passwd", Denied, "command-not-executable", 'exec: "/etc/passwd": permission denied'),
        ("/etc", Denied, "command-not-executable", 'exec: "/etc": is a directory'),
        ("/empty", Denied, "command-not-executable", 'exec: "/empty": exec format error'),
        ("/script", NotFound, "command-not-found", 'exec: "/script": no such file or directory'),
        ("plain", Denied, "command-not-executable", 'exec: "plain": permission denied'),
    ],
)
def test_commands_that_cannot_run(containers: Any, command: str, kind: type[ProaError], code: str, text: str) -> None:
    root = containers.copy()
    (root / "empty").touch()
    (root / "script").write_text("#!/no/interpreter\n")
    (root / "bin/plain").touch()
    for name in ("empty", "script"):
        (root / name).chmod(0o755)
    with pytest.raises(kind) as caught:
        containers.run(command, rootfs=containers.overlay(root))
    assert caught.value.code == code
    assert caught.value.message == text
    assert caught.value.fields["step"] == "executing the command"


def test_a_file_a_user_may_not_execute(containers: Any) -> None:
    root = containers.copy()
    (root / "bin/private").write_text("#!/bin/sh\necho ran\n")
    (root / "bin/private").chmod(0o700)
    assert containers.run("private", rootfs=containers.overlay(root)).stdout == "ran\n"
    with pytest.raises(Denied):
        containers.run("private", rootfs=containers.overlay(root), user="user")


def test_a_failed_start_leaves_nothing(containers: Any) -> None:
    before = set(containers.call("fds")["result"])
    with pytest.raises(NotFound):
        containers.run("nosuch")
    assert set(containers.call("fds")["result"]) == before
    assert not [name for name in os.listdir("/sys/fs/cgroup/memory") if name.startswith(f"test-{os.getpid()}")]


def test_working_directory_is_made_and_entered(containers: Any) -> None:
    assert containers.run("pwd", cwd="/a/b/c").stdout == "/a/b/c\n"
    assert containers.sh("pwd; stat -c '%u %a' .", cwd="/deep/er", user="user").stdout == "/deep/er\n0 755\n"


def test_working_directory_only_the_user_may_enter(containers: Any) -> None:
    root = containers.copy()
    (root / "home/user").chmod(0o700)
    os.chown(root / "home/user", 1000, 1001)
    assert (
        containers.run("pwd", cwd="/home/user", user="user", rootfs=containers.overlay(root)).stdout == "/home/user\n"
    )


@pytest.mark.parametrize("link", ["/proc/self/fd/{}", "/proc/1/fd/{}", "/proc/thread-self/fd/{}"])
def test_no_fd_of_ours_serves_as_working_directory_or_command(containers: Any, link: str) -> None:
    """CVE-2024-21626: a leaked fd of the host as a working directory."""
    for number in range(3, 20):
        for options in ({"cwd": link.format(number)}, {}):
            command = "pwd" if options else f"{link.format(number)}/bin/sh"
            try:
                result = containers.run(command, **options)
            except ProaError as error:
                assert not isinstance(error, Internal), error.message
            else:
                pytest.fail(f"{link.format(number)}: {result}")


def test_working_directory_through_the_root_link_stays_inside(containers: Any) -> None:
    assert containers.run("ls", cwd="/proc/self/root").stdout.split() == containers.run("ls", "/").stdout.split()


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", "0:0:0 10"),
        ("root", "0:0:0 10"),
        ("user", "1000:1001:10 50 1001"),
        ("user:50", "1000:50:50"),
        ("user:staff", "1000:50:50"),
        ("1000", "1000:1001:10 50 1001"),
        ("1337", "1337:0:0"),
        ("4294967294:7", "4294967294:7:7"),
        (":5", "0:5:5"),
        ("1:", "1:0:0"),
    ],
)
def test_users(containers: Any, user: str, ids: str) -> None:
    result = containers.sh("cat /proc/self/status", user=user)
    lines = dict(line.split(":\t", 1) for line in result.stdout.splitlines())
    found = f"{lines['Uid'].split()[0]}:{lines['Gid'].split()[0]}:{lines['Groups'].strip()}"
    assert found == ids


@pytest.mark.parametrize(
    "user",
    [
        "nobody",
        "-1",
        "+1",
        "1e3",
        "0x1",
        "\u0661",
        "1 ",
        "4294967295",
        "4294967296",
        "9" * 30,
        "user:none",
        "bad",
        "a\nb",
    ],
)
def test_users_that_do_not_exist(containers: Any, user: str) -> None:
    with pytest.raises(Invalid) as caught:
        containers.run("id", user=user)
    assert caught.value.code in ("no-such-user", "no-such-group", "uid-out-of-range")


def test_numeric_ids_groups_and_umask(containers: Any) -> None:
    def change(config: dict[str, Any]) -> None:
        config["process"]["user"] = {"uid": 5, "gid": 6, "additionalGids": [8, 7], "umask": 0o077}

    result = containers.sh("id; umask; echo $HOME", change=change)
    assert result.stdout == "uid=5 gid=6 groups=6,7,8\n0077\n/\n"


@pytest.mark.parametrize("kind", ["fifo", "device link", "directory", "loop", "huge", "socket", "no newline"])
def test_hostile_account_files_fail_fast(containers: Any, kind: str) -> None:
    """CVE-2024-9676, CVE-2025-4437: /etc/passwd that never ends or never answers."""
    root = containers.copy()
    passwd = root / "etc/passwd"
    passwd.unlink()
    match kind:
        case "fifo":
            os.mkfifo(passwd)
        case "device link":
            passwd.symlink_to("/dev/zero")
        case "directory":
            passwd.mkdir()
        case "loop":
            passwd.symlink_to("passwd")
        case "huge":
            with open(passwd, "wb") as file:
                file.truncate(20 << 20)
        case "socket":
            import socket

            with socket.socket(socket.AF_UNIX) as sock:
                here = os.open(root / "etc", os.O_PATH)
                sock.bind(f"/proc/self/fd/{here}/passwd")
                os.close(here)
        case "no newline":
            passwd.write_bytes(b"x" * (1 << 20))
    began = time.monotonic()
    with pytest.raises(Invalid):
        containers.run("id", user="user", rootfs=containers.overlay(root))
    assert time.monotonic() - began < 3


def test_home_comes_from_the_account_unless_given(containers: Any) -> None:
    assert containers.sh("echo $HOME").stdout == "/root\n"
    assert containers.sh("echo $HOME", user="4000").stdout == "/\n"
    assert containers.sh("echo $HOME", env=["HOME=/mine", "PATH=/bin"]).stdout == "/mine\n"


def test_missing_bind_source_is_named(containers: Any, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["mounts"].append(
            {"destination": "/x", "type": "bind", "source": f"{tmp_path}/none", "options": ["rbind"]}
        )

    with pytest.raises(Invalid, match=f"bind source path does not exist: {tmp_path}/none"):
        containers.run("true", change=change)
