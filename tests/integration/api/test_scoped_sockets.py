"""Scoped sockets with the real docker command: what they let through, what they refuse, and that they come back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import proa as proa_sdk
from proa.errors import Denied

pytestmark = pytest.mark.root

PROA = str(Path(sys.executable).with_name("proa"))


class Scoped:
    """A docker command at one scoped socket."""

    def __init__(self, engine: Any, name: str, *scope: str) -> None:
        self.engine = engine
        self.path = engine.directory / f"{name}.sock"
        done = proa(engine, "add", str(self.path), *scope)
        assert done.returncode == 0, done.stderr

    def __call__(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        env = self.engine.env | {"DOCKER_HOST": f"unix://{self.path}"}
        return subprocess.run(["docker", *args], env=env, capture_output=True, text=True, timeout=60, **options)

    def works(self, *args: str, **options: Any) -> str:
        done = self(*args, **options)
        assert done.returncode == 0, (args, done, self.engine.log.read_text()[-3000:])
        return done.stdout.strip()

    def refused(self, *args: str, **options: Any) -> str:
        done = self(*args, **options)
        assert done.returncode != 0, (args, done)
        assert f"is denied by the scope of the socket {self.path}" in done.stderr, (args, done)
        return done.stderr


def proa(engine: Any, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROA, "system", "socket", *args], env=engine.env, capture_output=True, text=True, timeout=60, check=False
    )


def audit(engine: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (engine.root / "audit.log").read_text().splitlines()]


@pytest.fixture
def scoped(ready: Any) -> Callable[..., Scoped]:
    ready.docker("run", "-d", "--name", "theirs", "--network", "none", "-v", "theirs:/data", "busybox", "sleep", "1000")
    return lambda name, *scope: Scoped(ready, name, *scope)


def test_a_read_only_socket_looks_and_does_not_touch(ready: Any, scoped: Callable[..., Scoped]) -> None:
    look = scoped("look", "--read-only")
    assert look.works("ps", "--format", "{{.Names}}") == "theirs"
    assert look.works("inspect", "-f", "{{.State.Running}}", "theirs") == "true"
    look.works("logs", "theirs")
    look.works("images")
    look.works("info")
    before = ready.out("ps", "-aq", "--no-trunc"), ready.out("volume", "ls", "-q")
    for words in (
        ("run", "busybox"),
        ("rm", "-f", "theirs"),
        ("stop", "theirs"),
        ("exec", "theirs", "id"),
        ("cp", "theirs:/etc/passwd", "-"),
        ("export", "theirs"),
        ("volume", "create", "x"),
        ("network", "create", "x"),
        ("rmi", "busybox"),
        ("tag", "busybox", "other"),
    ):
        assert "read-only" in look.refused(*words)
    assert (ready.out("ps", "-aq", "--no-trunc"), ready.out("volume", "ls", "-q")) == before
    lines = audit(ready)
    assert {line["Uid"] for line in lines} == {os.getuid()}
    assert all(line["Socket"] == str(look.path) and line["Scope"] == "read-only" for line in lines)
    assert any(line["Method"] == "DELETE" and line["Path"] == "/containers/theirs" for line in lines)


def test_the_audit_names_the_user_who_asked(ready: Any, scoped: Callable[..., Scoped]) -> None:
    ready.directory.chmod(0o711)
    look = scoped("uid", "--read-only", "--owner", "1234:1234")
    request = b"POST /containers/theirs/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    code = f"import socket; s = socket.socket(1); s.connect({str(look.path)!r}); s.send({request!r}); print(s.recv(99))"
    done = subprocess.run(["/usr/bin/python3", "-c", code], user=1234, group=1234, capture_output=True, check=True)
    assert b"403 Forbidden" in done.stdout
    assert audit(ready)[-1]["Uid"] == 1234
    refused = subprocess.run(["/usr/bin/python3", "-c", code], user=4321, group=4321, capture_output=True, check=False)
    assert b"PermissionError" in refused.stderr


def test_allowed_areas_give_no_way_to_the_host(ready: Any, scoped: Callable[..., Scoped]) -> None:
    some = scoped("some", "--allow", "containers,exec")
    assert some.works("run", "--rm", "--network", "none", "busybox", "echo", "hi") == "hi"
    assert some.works("exec", "theirs", "echo", "in") == "in"
    for options in (
        ("--privileged",),
        ("-v", "/:/host"),
        ("--mount", "type=bind,src=/,dst=/host"),
        ("--network", "host"),
        ("--pid", "host"),
        ("--ipc", "host"),
        ("--uts", "host"),
        ("--userns", "host"),
        ("--cap-add", "SYS_ADMIN"),
        ("--device", "/dev/null"),
        ("--security-opt", "seccomp=unconfined"),
        ("--security-opt", "systempaths=unconfined"),
        ("--volumes-from", "theirs"),
        ("-v", "theirs:/data"),
    ):
        some.refused("run", "--rm", *options, "busybox", "true")
    some.refused("exec", "--privileged", "theirs", "true")
    some.refused("images")
    some.refused("cp", "theirs:/etc/passwd", "-")
    ready.docker("run", "-d", "--name", "mighty", "--network", "none", "--privileged", "busybox", "sleep", "1000")
    ready.docker("run", "-d", "--name", "bound", "--network", "none", "-v", "/tmp:/t", "busybox", "sleep", "1000")
    for name in ("mighty", "bound"):
        some.refused("exec", name, "true")
        assert "received 403" in some("attach", name).stderr
        some.refused("run", "--rm", "--network", f"container:{name}", "busybox", "true")
        some.refused("run", "--rm", "--network", "none", "--pid", f"container:{name}", "busybox", "true")
    files = scoped("files", "--allow", "containers,exec,files,volumes")
    files.refused("cp", "/etc/hostname", "bound:/t/x")
    files.refused("run", "--rm", "--network", "none", "--volumes-from", "bound", "busybox", "true")
    files.refused("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/etc", "host")
    assert ready.out("ps", "-aq", "--filter", "status=created") == ""


def test_the_sdk_runs_what_the_command_may_run(ready: Any, scoped: Callable[..., Scoped]) -> None:
    """`POST /proa/v1/containers/run` is narrowed as Docker's create is."""
    mine = scoped("mine", "--label", "ci=one")
    reads = scoped("reads", "--read-only")
    with proa_sdk.connect(f"unix://{mine.path}") as client:
        assert client.containers.run("busybox", ["echo", "hi"], network="none").stdout == b"hi\n"
        kept = client.containers.run("busybox", ["true"], name="kept", auto_remove=False, network="none")
        assert kept.exit_code == 0
        assert client.containers.get("kept").details.config.labels == {"ci": "one"}
        client.containers.get("kept").remove()
        for mighty in ({"privileged": True}, {"network": "host"}, {"cap_add": ["SYS_ADMIN"]}):
            with pytest.raises(Denied, match="scope of the socket"):
                client.containers.run("busybox", ["true"], **{"network": "none", **mighty})
    with proa_sdk.connect(f"unix://{reads.path}") as client, pytest.raises(Denied, match="scope of the socket"):
        client.containers.run("busybox", ["true"], network="none")
    assert ready.out("ps", "-aq", "--filter", "status=created") == ""


def test_a_label_is_a_world_of_its_own(ready: Any, scoped: Callable[..., Scoped]) -> None:
    mine = scoped("mine", "--label", "ci=one")
    assert mine.works("ps", "-aq") == ""
    assert mine.works("volume", "ls", "-q") == ""
    assert mine.works("network", "ls", "-q") == ""
    mine.works("network", "create", "lan")
    mine.works("volume", "create", "kept")
    run = ("run", "-d", "--network", "lan", "-v", "kept:/k", "-v", "new:/n", "-v", "/anonymous")
    mine.works(*run, "--name", "own", "--label", "ci=two", "busybox", "sleep", "1000")
    assert ready.out("inspect", "-f", '{{index .Config.Labels "ci"}}', "own") == "one"
    assert mine.works("ps", "--format", "{{.Names}}") == "own"
    assert len(mine.works("volume", "ls", "-q").split()) == 3
    assert mine.works("network", "ls", "--format", "{{.Name}}") == "lan"
    assert mine.works("exec", "own", "echo", "in") == "in"
    for words in (
        ("inspect", "--type", "container", "theirs"),
        ("rm", "-f", "theirs"),
        ("exec", "theirs", "true"),
        ("logs", "theirs"),
        ("cp", "theirs:/etc/passwd", "-"),
        ("volume", "inspect", "theirs"),
        ("volume", "rm", "theirs"),
        ("volume", "create", "theirs"),
        ("network", "inspect", "bridge"),
        ("network", "connect", "lan", "theirs"),
        ("run", "--rm", "-v", "theirs:/x", "busybox", "true"),
        ("run", "--rm", "--volumes-from", "theirs", "busybox", "true"),
        ("run", "--rm", "--network", "container:theirs", "busybox", "true"),
        ("run", "--rm", "--pid", "container:theirs", "busybox", "true"),
        ("run", "--rm", "-v", "/:/host", "busybox", "true"),
        ("commit", "theirs", "x"),
        ("commit", "own", "busybox"),
        ("tag", "busybox", "x"),
        ("rmi", "busybox"),
        ("system", "df"),
    ):
        assert "label ci=one" in mine.refused(*words)
    theirs = ready.out("inspect", "-f", "{{.Id}}", "theirs")
    mine.refused("rm", "-f", theirs[:12])
    exec_id = ready.ask("POST", "/containers/theirs/exec", b'{"Cmd": ["true"]}', Content_Type="application/json")[1][
        "Id"
    ]
    start = f"http://x/exec/{exec_id}/start"
    status = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", mine.path, "-d", "{}", start],
        capture_output=True,
        text=True,
        check=True,
    )
    assert status.stdout == "403"
    ready.docker("stop", "-t", "0", "theirs")
    mine.works("container", "prune", "-f")
    assert ready.out("ps", "-aq", "--filter", "name=theirs")
    mine.works("rm", "-f", "-v", "own")
    mine.works("volume", "prune", "-a", "-f")
    mine.works("network", "rm", "lan")
    assert ready.out("volume", "ls", "-q") == "theirs"


def test_events_of_a_label_are_its_own(ready: Any, scoped: Callable[..., Scoped]) -> None:
    mine = scoped("ev", "--label", "ci=one")
    since = str(time.time() - 1)
    mine.works("create", "--name", "own", "--network", "none", "busybox")
    ready.docker("rename", "theirs", "renamed")
    seen = mine.works("events", "--since", since, "--until", str(time.time()), "--format", "{{.Action}}")
    assert seen == "create"


def test_sockets_come_back_and_go(ready: Any, scoped: Callable[..., Scoped]) -> None:
    look = scoped("look", "--read-only", "--allow", "containers")
    assert "exists" not in (again := proa(ready, "add", str(look.path), "--read-only")).stderr
    assert again.returncode == 1
    assert proa(ready, "add", str(ready.directory / "x.sock")).returncode == 1
    assert not (ready.directory / "x.sock").exists()
    assert json.loads(proa(ready, "ls", "--format", "json").stdout)["Scope"]["Allow"] == ["containers"]
    ready.end(signal.SIGKILL)
    ready.start()
    ready.ask("GET", "/_ping")  # answered once everything is served
    assert look.works("ps", "--format", "{{.Names}}") == "theirs"
    assert "read-only, allow containers" in proa(ready, "ls").stdout
    assert ready.end() == 0
    assert not look.path.exists()
    ready.start()
    ready.ask("GET", "/_ping")
    look.refused("rm", "-f", "theirs")
    events = subprocess.Popen(
        ["curl", "-sN", "--unix-socket", str(look.path), "http://x/containers/theirs/logs?stdout=1&follow=1"]
    )
    time.sleep(0.3)
    assert proa(ready, "rm", str(look.path)).returncode == 0
    events.wait(10)
    assert not look.path.exists()
    assert proa(ready, "rm", str(look.path)).returncode == 1
    assert proa(ready, "ls").stdout.count("\n") == 1


def test_a_place_where_others_could_swap_the_socket_is_refused(fresh: Any) -> None:
    fresh.start()
    open_to_all = fresh.directory / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    done = proa(fresh, "add", str(open_to_all / "s.sock"), "--read-only")
    assert "others could replace" in done.stderr
    assert not list(open_to_all.iterdir())
