"""login, push, pull and `run --pull` with a registry that asks who one is; what a pipe and a terminal show."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import engines
import pytest
import registries

import proa

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    """A registry with a login."""
    running = registries.Registry(tmp_path_factory.mktemp("registry"), login=True)
    yield running
    running.close()


@pytest.fixture
def name(shared: engines.PrivateEngine, guarded: registries.Registry) -> Iterator[str]:
    """`busybox` under a name in the registry, and nobody logged in."""
    name = f"{guarded.host}/things/busybox:1"
    shared.proa("tag", "busybox", name)
    yield name
    shared.proa("logout", guarded.host)
    shared.proa("rmi", "-f", name)


def log_in(engine: engines.PrivateEngine, host: str, password: str, *, check: bool = True) -> str:
    done = engine.proa("login", "-u", registries.USER, "--password-stdin", host, stdin=password.encode(), check=check)
    return done.stdout.decode() + done.stderr.decode()


def test_a_login_is_needed_kept_and_forgotten(
    shared: engines.PrivateEngine, guarded: registries.Registry, name: str
) -> None:
    done = shared.proa("push", name, check=False)
    assert done.returncode == 1
    assert done.stderr
    assert "unauthorized" in log_in(shared, guarded.host, "wrong", check=False).lower()
    assert "Login Succeeded" in log_in(shared, guarded.host, registries.PASSWORD)
    config = shared.directory / ".docker" / "config.json"
    assert config.stat().st_mode & 0o777 == 0o600
    assert guarded.host in json.loads(config.read_text())["auths"]
    assert shared.out("push", "-q", name) == name
    assert "Removing login credentials" in shared.out("logout", guarded.host)
    assert guarded.host not in json.loads(config.read_text())["auths"]
    assert shared.proa("pull", name, check=False).returncode == 1


@pytest.mark.parametrize("by", ["command", "sdk"])
def test_repair_fetches_with_the_login(
    engine: engines.PrivateEngine, guarded: registries.Registry, busybox_tar: Path, by: str
) -> None:
    """What is damaged comes from a registry that tells nobody else."""
    name = f"{guarded.host}/things/damaged-{by}:1"
    engine.proa("import", str(busybox_tar), name)
    log_in(engine, guarded.host, registries.PASSWORD)
    engine.proa("push", "-q", name)
    engine.proa("rmi", name)
    engine.proa("pull", "-q", name)
    layer = max((engine.root / "content/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    whole = layer.read_bytes()
    layer.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    config = engine.directory / ".docker" / "config.json"
    known = config.read_text()
    engine.proa("logout", guarded.host)
    refused = engine.proa("system", "check", "--repair", check=False)
    assert refused.returncode == 1
    assert "not repaired" in refused.stdout.decode()
    config.write_text(known)
    if by == "command":
        assert "1 problem found, 1 repaired" in engine.out("system", "check", "--repair")
    else:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("DOCKER_CONFIG", str(config.parent))
            with proa.connect(engine.socket) as client:
                assert [p.repaired for p in client.check(repair=True)] == ["fetched again"]
    assert layer.read_bytes() == whole


def test_pull_tells_what_it_does(shared: engines.PrivateEngine, guarded: registries.Registry, name: str) -> None:
    log_in(shared, guarded.host, registries.PASSWORD)
    shared.proa("push", name)
    shared.proa("rmi", name)
    lines = shared.out("pull", name).splitlines()
    assert lines[0] == "1: Pulling from things/busybox"
    assert any(line.startswith("Digest: sha256:") for line in lines)
    assert lines[-2:] == [f"Status: Downloaded newer image for {name}", name]
    assert f"Status: Image is up to date for {name}" in shared.out("pull", name)
    assert shared.out("pull", "-q", name) == name
    done = shared.proa("pull", f"{guarded.host}/things/none:1", check=False)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_run_pulls_as_told(shared: engines.PrivateEngine, guarded: registries.Registry, name: str) -> None:
    log_in(shared, guarded.host, registries.PASSWORD)
    shared.proa("push", name)
    shared.proa("rmi", name)
    run = ("run", "--rm", "--network", "none")
    done = shared.proa(*run, "--pull", "never", name, "echo", "ran", check=False)
    assert (done.returncode, done.stdout) == (125, b"")
    done = shared.proa(*run, name, "echo", "ran")
    assert done.stdout == b"ran\n"
    assert f"Unable to find image '{name}' locally" in done.stderr.decode()
    assert "Pulling from things/busybox" in done.stderr.decode()
    done = shared.proa(*run, "--pull", "always", "-q", name, "echo", "ran")
    assert (done.stdout, done.stderr) == (b"ran\n", b"")


def test_the_sdk_uses_the_same_login(
    shared: engines.PrivateEngine, guarded: registries.Registry, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(shared, guarded.host, registries.PASSWORD)
    monkeypatch.setenv("DOCKER_CONFIG", str(shared.directory / ".docker"))
    with proa.connect(shared.socket) as engine:
        steps: list[proa.Progress] = []
        digest = engine.images.push(name, progress=steps.append)
        assert digest.startswith("sha256:")
        assert steps
        engine.images.remove(name)
        assert name in engine.images.pull(name).tags
        engine.images.remove(name)
        assert engine.containers.run(name, ["echo", "ran"], network="none").stdout == b"ran\n"
        monkeypatch.setenv("DOCKER_CONFIG", "/nowhere")
        with pytest.raises(proa.ProaError):
            engine.images.pull(name)


def test_a_terminal_sees_rows(shared: engines.PrivateEngine, guarded: registries.Registry, name: str) -> None:
    log_in(shared, guarded.host, registries.PASSWORD)
    shared.proa("push", name)
    shared.proa("rmi", name, "busybox")  # with its last name go its layers
    ours, theirs = pty.openpty()
    seen = bytearray()

    def watch() -> None:
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                return
            seen.extend(piece)

    watcher = threading.Thread(target=watch)
    watcher.start()
    process = subprocess.run([engines.PROA, "pull", name], stdout=theirs, stderr=theirs, env=shared.env, check=False)
    os.close(theirs)
    watcher.join(10)
    os.close(ours)
    assert process.returncode == 0
    shared.proa("tag", name, "busybox")
    text = seen.decode()
    assert "\x1b[1A\r\x1b[2K" in text
    assert "Pull complete" in text
