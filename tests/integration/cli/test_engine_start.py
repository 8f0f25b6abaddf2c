"""The engine starts itself, once, and says why when it cannot."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import engines
import pytest

pytestmark = pytest.mark.root


def test_fifty_first_commands_start_one_engine(engine: engines.PrivateEngine) -> None:
    with ThreadPoolExecutor(50) as pool:
        done = list(pool.map(lambda _: engine.proa("ps", check=False), range(50)))
    assert [d.stderr for d in done if d.returncode] == []
    command = f"--root\0{engine.root}\0"
    running = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    text = file.read().decode(errors="replace")
            except OSError:
                continue
            if "proa.api" in text and command in text:
                running.append(int(entry))
    assert running == [engine.pid]


def test_the_engine_is_nobodys_child_and_in_its_own_session(engine: engines.PrivateEngine) -> None:
    engine.proa("ps")
    with open(f"/proc/{engine.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    assert int(fields[3]) != os.getsid(0)
    assert int(fields[1]) != os.getpid()
    assert os.readlink(f"/proc/{engine.pid}/cwd") == "/"
    assert os.readlink(f"/proc/{engine.pid}/fd/0") == "/dev/null"


def test_status_and_stop(engine: engines.PrivateEngine) -> None:
    done = engine.proa("system", "status", check=False)
    assert done.returncode == 3
    assert b"not running" in done.stdout
    engine.proa("ps")
    assert b"running, version" in engine.proa("system", "status").stdout
    assert engine.out("system", "status", "--format", "{{.Running}} {{.Root}}") == f"true {engine.root}"
    pid = engine.pid
    engine.proa("system", "stop")
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{pid}")
    assert engine.proa("system", "stop").returncode == 0


def test_a_host_that_was_named_is_not_started(engine: engines.PrivateEngine) -> None:
    for name in ("PROA_HOST", "DOCKER_HOST"):
        done = engine.proa("ps", env={name: f"unix://{engine.directory}/other.sock"}, check=False)
        assert done.returncode == 1
        assert "cannot connect to the engine at unix://" in done.stderr.decode()
    done = engine.proa("-H", "nonsense", "ps", check=False)
    assert "not unix:///path or tcp://host:port" in done.stderr.decode()
    assert not engine.root.exists()


def test_an_engine_that_cannot_start_says_why(engine: engines.PrivateEngine) -> None:
    engine.directory.joinpath("root").write_text("a file, not a directory")
    started = time.monotonic()
    done = engine.proa("ps", check=False)
    assert done.returncode == 1
    assert "start" in done.stderr.decode() or "directory" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert time.monotonic() - started < 20
    engine.directory.joinpath("root").unlink()


def test_the_service_in_the_foreground(engine: engines.PrivateEngine) -> None:
    service = subprocess.Popen([engines.PROA, "system", "service"], env=engine.env, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while engine.proa("system", "status", check=False).returncode and time.monotonic() < deadline:
            time.sleep(0.05)
        assert engine.pid == service.pid
        engine.proa("ps")
    finally:
        service.terminate()
        service.communicate(timeout=20)


def test_the_service_at_another_socket(engine: engines.PrivateEngine) -> None:
    host = f"unix://{engine.directory}/other.sock"
    service = subprocess.Popen(
        [engines.PROA, "system", "service"], env={**engine.env, "PROA_HOST": host}, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while engine.proa("-H", host, "system", "status", check=False).returncode and time.monotonic() < deadline:
            time.sleep(0.05)
        assert engine.proa("ps", env={"PROA_HOST": host}).returncode == 0
    finally:
        service.terminate()
        service.wait(20)
    done = engine.proa("-H", "tcp://127.0.0.1:2375", "system", "service", check=False)
    assert "--tcp makes it listen on a port besides" in done.stderr.decode()
