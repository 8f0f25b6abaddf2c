"""Secrets and configs without a swarm: kept by the engine, read-only files or variables in containers."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import PrivateEngine, until

pytestmark = pytest.mark.root

QUIET = ("--network", "none")


@pytest.fixture(autouse=True)
def none_stay(box: PrivateEngine) -> Iterator[None]:
    yield
    for kind in ("secret", "config"):
        if ids := box.out(kind, "ls", "-q").split():
            box.proa(kind, "rm", *ids)


def test_what_containers_see(box: PrivateEngine) -> None:
    box.proa("secret", "create", "token", "-", stdin=b"s3cret")
    box.proa("config", "create", "--label", "of=web", "settings", "-", stdin=b"key=value\n")
    look = (
        "stat -c '%a %u %g' /run/secrets/token /etc/app/key; cat /run/secrets/token /etc/app/key /settings; echo $TOKEN"
    )
    options = ("--secret", "token", "--secret", "source=token,target=/etc/app/key,uid=7,gid=8,mode=0440")
    options += ("--secret", "token,env=TOKEN", "--config", "settings")
    assert box.sh(look, *options).split() == ["400", "0", "0", "440", "7", "8", "s3crets3cretkey=value", "s3cret"]
    failed = box.proa("run", "--rm", *QUIET, "--secret", "token", "busybox", "sh", "-c", "echo x > /run/secrets/token",
                      check=False)  # fmt: skip
    assert b"Read-only file system" in failed.stderr
    # Neither inspect nor a commit has it.
    box.proa("run", "--name", "user", *QUIET, *options, "busybox", "true")
    assert "s3cret" not in box.proa("inspect", "user").stdout.decode()
    box.proa("commit", "user", "made")
    assert "s3cret" not in box.proa("inspect", "made").stdout.decode()
    assert box.sh("ls -A /run/secrets 2>/dev/null; true", image="made") == ""


def test_they_are_gone_with_the_container(box: PrivateEngine) -> None:
    box.proa("secret", "create", "token", "-", stdin=b"s3cret")
    box.proa("run", "-d", "--name", "user", *QUIET, "--secret", "token", "busybox", "sleep", "1000")
    kept = box.run_dir / "secrets"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert len(list(kept.iterdir())) == 1
    box.proa("secret", "rm", "token")
    assert box.out("exec", "user", "cat", "/run/secrets/token") == "s3cret"
    box.proa("kill", "user")
    until(lambda: not list(kept.iterdir()))
    again = box.proa("start", "user", check=False)
    assert (again.returncode, b"secret token not found" in again.stderr) == (1, True)
    assert not list(kept.iterdir())


def test_the_docker_command_keeps_them(box: PrivateEngine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x00binary\xff")
    box.docker("secret", "create", "--label", "a=b", "one", str(tmp_path / "file"))
    box.docker("config", "create", "two", str(tmp_path / "file"))
    assert box.docker("secret", "ls", "--format", "{{.Name}}").stdout == b"one\n"
    assert box.docker("config", "ls", "-q", "--filter", "name=two").stdout.strip()
    shown = json.loads(box.docker("secret", "inspect", "one").stdout)[0]
    assert shown["Spec"] == {"Name": "one", "Labels": {"a": "b"}}
    assert b"binary" in box.docker("config", "inspect", "--pretty", "two").stdout
    assert box.sh("wc -c < /two", "--config", "two") == "8"
    again = box.docker("secret", "create", "one", str(tmp_path / "file"), check=False)
    assert b"already exists" in again.stderr
    box.docker("secret", "rm", "one")
    box.docker("config", "rm", "two")
    assert box.docker("secret", "inspect", "one", check=False).returncode == 1
    services = box.docker("service", "ls", check=False)
    assert b"This node is not a swarm manager" in services.stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--secret", "nobody"), "secret nobody not found"),
        (("--secret", "kept,target=../x"), "invalid target"),
        (("--secret", "kept,env=1X"), "invalid variable"),
        (("--secret", "kept,colour=red"), "is not understood"),
        (("--config", "target=/x"), "names no config"),
    ],
)
def test_what_is_refused(box: PrivateEngine, options: tuple[str, ...], text: str) -> None:
    box.proa("secret", "create", "kept", "-", stdin=b"x")
    failed = box.proa("run", "--rm", *QUIET, *options, "busybox", "true", check=False)
    assert (failed.returncode, text in failed.stderr.decode()) == (125, True), failed.stderr
    assert box.containers() == []


def test_bounds(box: PrivateEngine) -> None:
    for name, data in (("empty", b""), ("large", os.urandom(501 << 10)), ("bad/name", b"x")):
        assert box.proa("secret", "create", name, "-", stdin=data, check=False).returncode == 1
    assert box.out("secret", "ls", "-q") == ""
