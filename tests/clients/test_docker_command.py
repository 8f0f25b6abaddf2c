"""The real docker command 28 against the engine: it works, and what it shows is what our own command shows."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
import registries
from engines import PrivateEngine, until

pytestmark = [pytest.mark.root, pytest.mark.peers]

QUIET = ("--network", "none")


def test_run_in_the_foreground(box: PrivateEngine) -> None:
    done = box.docker("run", "--rm", *QUIET, "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)
    data = os.urandom(8 << 20)
    done = box.docker("run", "--rm", "-i", *QUIET, "busybox", "sha256sum", stdin=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert box.containers() == []


def test_run_in_a_terminal(box: PrivateEngine) -> None:
    terminal = box.terminal("run", "--rm", "-it", *QUIET, "busybox", "sh", program="docker", size=(30, 90))
    terminal.expect(b"#")
    terminal.send(b"stty size; exit 11\n")
    terminal.expect(b"30 90\r\n")
    assert terminal.end() == 11
    terminal = box.terminal("run", "-it", "--name", "left", *QUIET, "busybox", "sh", program="docker")
    terminal.expect(b"#")
    terminal.send(b"\x10\x11")
    terminal.end()
    assert box.inspect("left")["State"]["Running"] is True


def test_the_life_of_a_container(box: PrivateEngine) -> None:
    identity = box.docker(
        "run", "-d", "--name", "life", *QUIET, "busybox", "sh", "-c", "echo up; sleep 1000; true"
    ).stdout
    assert box.inspect("life")["Id"] == identity.decode().strip()
    until(lambda: box.docker("logs", "life").stdout == b"up\n", "its output")
    assert box.docker("exec", "life", "cat", "/proc/1/comm").stdout == b"sh\n"
    assert box.docker("exec", "life", "sh", "-c", "exit 5", check=False).returncode == 5
    assert box.docker("exec", "-i", "life", "cat", stdin=b"piped").stdout == b"piped"
    assert box.docker("stop", "-t", "0", "life").stdout == b"life\n"
    assert box.docker("wait", "life").stdout == b"137\n"
    assert box.docker("start", "life").stdout == b"life\n"
    assert box.docker("rm", "-f", "life").stdout == b"life\n"
    assert box.containers() == []


def test_following_logs(box: PrivateEngine) -> None:
    box.proa("run", "-d", "-i", "--name", "talks", *QUIET, "busybox", "sh", "-c", "echo one; read x; echo two")
    terminal = box.terminal("logs", "-f", "talks", program="docker")
    terminal.expect(b"one")
    box.docker("attach", "talks", stdin=b"\n", check=False)
    terminal.expect(b"two")
    assert terminal.end() == 0


def test_images_to_a_registry_and_back(box: PrivateEngine, registry: registries.Registry) -> None:
    name = f"{registry.host}/clients/made:1"
    box.docker("run", "--name", "work", *QUIET, "busybox", "sh", "-c", "echo by docker > /made")
    box.docker("commit", "--change", 'CMD ["cat", "/made"]', "-m", "by hand", "work", name)
    said = box.docker("push", name).stdout.decode()
    assert ": digest: sha256:" in said
    box.docker("rm", "work")
    box.docker("rmi", name)
    said = box.docker("pull", name).stdout.decode()
    assert f"Status: Downloaded newer image for {name}" in said
    assert box.docker("run", "--rm", *QUIET, name).stdout == b"by docker\n"
    assert "Image is up to date" in box.docker("pull", name).stdout.decode()
    archive = box.docker("save", name).stdout
    box.docker("rmi", name)
    assert name in box.docker("load", stdin=archive).stdout.decode()
    assert box.proa("run", "--rm", *QUIET, name).stdout == b"by docker\n"


@pytest.fixture
def scene(box: PrivateEngine) -> PrivateEngine:
    """Containers in several states and a few images."""
    box.docker("run", "-d", "--name", "runs", "-l", "a=b", "-p", "127.0.0.1::80", "busybox", "sleep", "1000")
    box.docker("run", "--name", "ended", *QUIET, "busybox", "sh", "-c", "echo log; exit 3", check=False)
    box.docker("create", "--name", "made", "-v", "vol:/data", *QUIET, "busybox", "a command with 'quotes' that is long")
    box.docker("tag", "busybox", "registry.example:5000/other/name:tag")
    return box


COMMANDS = [
    ("ps",),
    ("ps", "-a", "--no-trunc"),
    ("ps", "-aq"),
    (
        "ps",
        "-a",
        "--format",
        "{{.Names}}|{{.Image}}|{{.Command}}|{{.Status}}|{{.Ports}}|{{.Labels}}|{{.Mounts}}|{{.Networks}}",
    ),
    ("ps", "-a", "--format", "table {{.ID}}\t{{.Names}}\t{{.State}}"),
    ("images",),
    ("images", "--no-trunc", "--digests"),
    ("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}"),
    ("history", "busybox"),
    ("history", "--no-trunc", "--format", "{{.ID}} {{.CreatedBy}} {{.Size}} {{.Comment}}", "busybox"),
    ("logs", "ended"),
    ("port", "runs"),
    ("volume", "ls"),
    ("network", "ls"),
    ("inspect", "-f", "{{.State.Status}} {{.Config.Cmd}} {{json .HostConfig.PortBindings}}", "runs"),
    ("inspect", "--format", "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}}{{end}}", "made"),
    ("version", "--format", "{{.Server.APIVersion}} {{.Server.MinAPIVersion}}"),
    ("info", "--format", "{{.Containers}} {{.ContainersRunning}} {{.Images}} {{.Driver}} {{.OSType}}"),
]


def test_both_commands_show_the_same(scene: PrivateEngine) -> None:
    def shown(answer: subprocess.CompletedProcess[bytes]) -> list[str]:
        return sorted(answer.stdout.decode().splitlines())  # docker shows the names of one image in any order

    for command in COMMANDS:
        # A second may pass between the two ("3 seconds ago"), but not twice.
        assert any(shown(scene.proa(*command)) == shown(scene.docker(*command)) for _ in range(3)), (
            scene.proa(*command),
            scene.docker(*command),
        )
    assert scene.out("top", "runs").split() == scene.docker("top", "runs").stdout.decode().split()
    ours, theirs = scene.out("images", "-q").split(), scene.docker("images", "-q").stdout.decode().split()
    assert set(ours) == set(theirs)


def test_json_rows_are_the_same(scene: PrivateEngine) -> None:
    for command in (("ps", "-a", "-s", "--format", "json"), ("images", "--format", "json")):
        ours, theirs = (
            sorted(
                map(json.loads, answer.stdout.splitlines()),
                key=lambda row: [str(row.get(k)) for k in ("Names", "Repository")],
            )
            for answer in (scene.proa(*command), scene.docker(*command))
        )
        assert len(ours) == len(theirs) > 1
        for mine, their in zip(ours, theirs, strict=True):
            passing = {
                "RunningFor",
                "Status",
                "CreatedSince",
                "VirtualSize",
            }  # seconds pass; docker rounds the last less
            assert {k: v for k, v in mine.items() if k not in passing} == {
                k: their[k] for k in mine if k not in passing
            }
            assert passing & set(mine)


@pytest.mark.parametrize("name", ["runs", "ended", "made", "busybox"])
def test_inspect_is_the_same(scene: PrivateEngine, name: str) -> None:
    ours, theirs = json.loads(scene.out("inspect", name)), json.loads(scene.docker("inspect", name).stdout)
    assert ours == theirs
    if name == "runs":
        assert list(ours[0]["NetworkSettings"]["Networks"]) == ["bridge"]
    wanted = {"Id", "Created"}
    wanted |= {"RootFS", "RepoTags", "Config"} if name == "busybox" else {"State", "HostConfig", "Mounts", "Name"}
    assert wanted <= set(ours[0])


REFUSED = [
    (("rm", "runs"), 1),
    (("start", "nosuch"), 1),
    (("exec", "ended", "true"), 1),
    (("run", "--name", "runs", "busybox", "true"), 125),
    (("run", "--rm", "--network", "none", "busybox", "nosuch"), 127),
    (("run", "--rm", "--network", "none", "busybox", "/etc"), 126),
    (("inspect", "nosuch"), 1),
    (("rmi", "nosuch"), 1),
    (("kill", "ended"), 1),
    (("ps", "--nosuch"), 125),
]


def test_both_commands_fail_alike(scene: PrivateEngine) -> None:
    for command, status in REFUSED:
        ours, theirs = scene.proa(*command, check=False), scene.docker(*command, check=False)
        assert (ours.returncode, theirs.returncode) == (status, status), command
        assert ours.stderr.strip()
        assert theirs.stderr.strip()


def test_copy_of_what_is_not_there_yet_is_refused_in_words(box: PrivateEngine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\n")
    done = box.docker("build", str(tmp_path), check=False)
    assert done.returncode != 0
    assert b"not supported" in done.stderr
