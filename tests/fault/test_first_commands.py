"""Engines come and go: the first command starts one, whatever lies about from before, and each root has its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import leaks
import pytest
from engines import PrivateEngine, until

pytestmark = pytest.mark.root


@pytest.fixture
def neighbour() -> Iterator[PrivateEngine]:
    private = PrivateEngine(Path(tempfile.mkdtemp(prefix="proa-test-")))
    yield private
    private.close()


def engines_of(engine: PrivateEngine) -> list[str]:
    return [p for p in leaks.processes() if "proa.api" in p and str(engine.root) in p]


def test_many_commands_after_a_crash_make_one_engine(busybox: PrivateEngine) -> None:
    busybox.proa("run", "-d", "--name", "running", "--network", "none", "busybox", "sleep", "1000")
    busybox.kill_engine()
    clients = [busybox.popen("exec", "running", "echo", str(n)) for n in range(30)]
    for n, client in enumerate(clients):
        out, err = client.communicate(timeout=60)
        assert (client.returncode, out, err) == (0, f"{n}\n".encode(), b"")
    assert len(engines_of(busybox)) == 1


def test_engines_side_by_side(busybox: PrivateEngine, neighbour: PrivateEngine, busybox_tar: Path) -> None:
    neighbour.proa("import", str(busybox_tar), "busybox")
    for engine, word in ((busybox, "one"), (neighbour, "two")):
        engine.proa("run", "-d", "-p", "127.0.0.1::80", "--name", "same", "--hostname", word, "busybox", "httpd", "-f")
    assert busybox.out("exec", "same", "hostname") == "one"
    assert neighbour.out("exec", "same", "hostname") == "two"
    addresses = {e.inspect("same")["NetworkSettings"]["IPAddress"] for e in (busybox, neighbour)}
    assert len(addresses) == 2
    assert busybox.out("port", "same", "80") != neighbour.out("port", "same", "80")
    busybox.kill_engine()
    assert neighbour.out("exec", "same", "hostname") == "two"
    assert busybox.out("exec", "same", "hostname") == "one"
    # One engine's end, and everything of it, is nothing to the other one.
    busybox.proa("rm", "-f", "same")
    busybox.proa("system", "prune", "-a", "-f")
    busybox.proa("system", "stop")
    assert neighbour.out("exec", "same", "hostname") == "two"
    fetch = ["wget", "-qO-", f"http://{neighbour.inspect('same')['NetworkSettings']['IPAddress']}/etc/os-release"]
    assert "ID=busybox" in neighbour.out("run", "--rm", "busybox", *fetch)


def test_what_lies_about_in_the_run_directory(busybox: PrivateEngine) -> None:
    busybox.proa("create", "--name", "made", "--network", "none", "busybox", "true")
    short = busybox.inspect("made")["Id"][:16]
    busybox.kill_engine()
    monitors = busybox.run_dir / "monitors"
    for name in (f"{short}.sock", "0123456789abcdef.sock"):  # of a known container, and of nobody
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(monitors / name))
    (monitors / "file").write_text("x")
    assert (busybox.run_dir / "engine.sock").is_socket()  # nobody answers there any more
    busybox.proa("start", "-a", "made")
    assert busybox.out("ps", "-aq", "--filter", "status=exited") == short[:12]
    assert not (monitors / "0123456789abcdef.sock").exists()


def test_a_socket_path_that_is_a_file_is_left_alone(engine: PrivateEngine) -> None:
    engine.run_dir.mkdir(mode=0o700)
    precious = engine.run_dir / "engine.sock"
    precious.write_text("precious")
    failed = engine.proa("ps", check=False, timeout=90)
    assert failed.returncode == 1
    assert failed.stderr.startswith(b"proa: cannot start the engine")
    assert precious.read_text() == "precious"
    assert not engines_of(engine)
    precious.unlink()


def test_reboot(busybox: PrivateEngine) -> None:
    """Nothing of a run survives a reboot but the data root."""
    busybox.proa("run", "-d", "--name", "served", "-p", "127.0.0.1::80", "-v", "kept:/data", "busybox",
                 "sh", "-c", "echo started >> /data/log; exec httpd -f")  # fmt: skip
    busybox.proa("run", "-d", "--name", "paused", "--network", "none", "busybox", "sleep", "1000")
    busybox.proa("run", "-d", "--rm", "--name", "fleeting", "--network", "none", "busybox", "sleep", "1000")
    busybox.proa("create", "--name", "made", "--network", "none", "busybox", "echo", "works")
    busybox.proa("pause", "paused")
    until(lambda: busybox.out("exec", "served", "cat", "/data/log") == "started", "the container's program")
    before = busybox.inspect("served")
    names = ("served", "paused", "fleeting")
    inits = [busybox.inspect(name)["State"]["Pid"] for name in names]
    monitors = [busybox.monitor_pid(name) for name in names]
    busybox.kill_engine()
    for pid in (*monitors, *inits):
        os.kill(pid, signal.SIGKILL)
    for line in leaks.cgroups():
        if line.startswith("/sys/fs/cgroup/freezer/") and line.rpartition("/")[2].startswith(busybox_id(busybox)):
            Path(line, "freezer.state").write_text("THAWED")
    for pid in inits:
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), f"process {pid} to end")
    subprocess.run(["rm", "-rf", str(busybox.run_dir)], check=True)

    # Another boot id than the records': whatever has their pids now is not theirs.
    for record in (busybox.root / "containers").glob("*/monitor.json"):
        text = record.read_text()
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert boot_id in text
        record.write_text(text.replace(boot_id, "0" * len(boot_id)))

    rows = busybox.out("ps", "-a", "--format", "{{.Names}} {{.State}}").splitlines()
    assert sorted(rows) == ["made created", "paused exited", "served exited"]
    after = busybox.inspect("served")
    assert after["State"]["ExitCode"] == 137
    assert {k: after[k] for k in ("Id", "Config", "HostConfig")} == {
        k: before[k] for k in ("Id", "Config", "HostConfig")
    }
    assert not [c for c in leaks.cgroups() if busybox_id(busybox) in c]
    for name in ("served", "paused"):
        busybox.proa("start", name)
        assert busybox.inspect(name)["State"]["Running"] is True
    assert busybox.out("start", "-a", "made") == "works"
    until(lambda: busybox.out("exec", "served", "cat", "/data/log") == "started\nstarted", "the second start")


def busybox_id(engine: PrivateEngine) -> str:
    return (engine.root / "engine-id").read_text().strip()
