"""The service as a process: starting, stopping, dying, and what survives it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root


def _until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_it_starts_quickly_idles_small_and_stops_clean(fresh: Any) -> None:
    fresh.start()
    assert fresh.ask("GET", "/_ping") == (200, b"OK")
    assert _ticks(fresh.pid) < 100  # 0.2 s; not by the clock, which tells what else the machine does
    mode = fresh.socket.stat()
    assert stat.S_IMODE(mode.st_mode) == 0o660
    assert stat.S_IMODE(fresh.run.stat().st_mode) in (0o700, 0o710)
    assert stat.S_IMODE(fresh.root.stat().st_mode) == 0o700
    fresh.ask("GET", "/containers/json?all=1")
    time.sleep(0.5)
    assert _pss_kib(fresh.pid) < 60 * 1024
    before = _ticks(fresh.pid)
    time.sleep(1)
    assert _ticks(fresh.pid) - before <= 1
    modules = subprocess.run(
        [sys.executable, "-I", "-c", "import proa.api.server, proa.api.operations, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"pyroute2", "aiohttp.client", "rich", "dataclasses_json", "requests"} & set(modules)
    assert fresh.end() == 0
    assert not fresh.socket.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_streams_and_leaves_containers(ready: Any, number: int) -> None:
    ready.docker(
        "run", "-d", "--name", "box", "--network", "none", "busybox", "sh", "-c", "echo before; exec sleep 1000"
    )
    pid = int(ready.out("inspect", "-f", "{{.State.Pid}}", "box"))
    stream = subprocess.Popen(["docker", "events"], env=ready.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    follow = subprocess.Popen(["docker", "logs", "-f", "box"], env=ready.env, stdout=subprocess.DEVNULL)
    time.sleep(0.3)
    began = time.monotonic()
    assert ready.end(number) == 0
    assert time.monotonic() - began < 5
    stream.wait(5)
    follow.wait(5)
    os.kill(pid, 0)
    ready.start()
    assert int(ready.out("inspect", "-f", "{{.State.Pid}}", "box")) == pid
    assert ready.out("exec", "box", "echo", "again") == "again"
    assert ready.out("logs", "box") == "before"


def test_kill_9_leaves_containers_logs_and_exit_codes(ready: Any) -> None:
    script = "i=0; while [ $i -lt 20 ]; do echo $i; i=$((i+1)); sleep 0.1; done; exit 42"
    ready.docker("run", "-d", "--name", "box", "--network", "none", "busybox", "sh", "-c", script)
    attached = subprocess.Popen(
        ["docker", "attach", "--no-stdin", "box"], env=ready.env, stdout=subprocess.PIPE, text=True
    )
    time.sleep(0.5)
    ready.end(signal.SIGKILL)
    began = time.monotonic()
    time.sleep(0.5)
    ready.start()
    assert time.monotonic() - began < 3.5
    assert ready.out("wait", "box") == "42"
    assert ready.out("logs", "box").split() == [str(n) for n in range(20)]
    assert attached.stdout is not None
    output = attached.stdout.read().split()  # the stream was the monitor's: it went on to the end
    attached.stdout.close()
    attached.wait(5)
    assert output[-1] == "19"


def test_the_second_engine_of_a_root_is_refused(fresh: Any) -> None:
    fresh.start()
    second = subprocess.run(fresh.command(), capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith("proa: ")
    assert "Traceback" not in second.stderr
    assert fresh.ask("GET", "/_ping")[0] == 200


def test_a_dead_engines_socket_is_replaced(fresh: Any) -> None:
    fresh.start()
    fresh.end(signal.SIGKILL)
    assert fresh.socket.exists()
    fresh.start()
    assert fresh.ask("GET", "/_ping")[0] == 200


def test_bad_flags_and_places(fresh: Any, tmp_path: Path) -> None:
    def fails(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        return done.stderr

    module = [sys.executable, "-I", "-m", "proa.api"]
    assert "--root" in fails(*module)
    assert "idle-exit" in fails(*fresh.command("--idle-exit", "soon"))
    (tmp_path / "file").write_text("x")
    assert "proa: " in fails(*module, "--root", str(tmp_path / "file"), "--run", str(tmp_path / "run"))
    assert "no socket" in fails(*fresh.command("--socket", str(tmp_path / "file")))
    long = tmp_path / ("x" * 90)
    assert "too long" in fails(*module, "--root", str(fresh.root), "--run", str(long))


def test_it_ends_itself_when_idle(fresh: Any, busybox_tar: Path) -> None:
    fresh.start("--idle-exit", "1")
    assert fresh.process.wait(10) == 0
    assert not fresh.socket.exists()
    fresh.start("--idle-exit", "1")
    with socket.socket(socket.AF_UNIX) as client:  # a client is connected: no exit
        client.connect(str(fresh.socket))
        client.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(2.5)
        assert fresh.process.poll() is None
    assert fresh.process.wait(10) == 0


def test_it_does_not_end_itself_while_a_container_runs(fresh: Any, busybox_tar: Path) -> None:
    fresh.start("--idle-exit", "1")
    fresh.ask("POST", "/images/create?fromSrc=-&repo=busybox", busybox_tar.read_bytes())
    fresh.docker("run", "-d", "--network", "none", "busybox", "sleep", "4")
    time.sleep(3)
    assert fresh.process.poll() is None
    assert fresh.process.wait(10) == 0


def test_stop_over_the_api(fresh: Any) -> None:
    fresh.start()
    status, said = fresh.ask("GET", "/proa/v1/status")
    assert (status, said["Pid"], said["Root"], said["Busy"]) == (200, fresh.pid, str(fresh.root), False)
    assert fresh.ask("POST", "/proa/v1/stop")[0] == 202
    assert fresh.process.wait(10) == 0


def test_readiness_is_told_and_sockets_are_taken_from_the_service_manager(fresh: Any) -> None:
    fresh.directory.mkdir(exist_ok=True)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        manager.bind(str(fresh.directory / "notify"))
        manager.settimeout(10)
        path = fresh.directory / "activated"
        listener.bind(str(path))
        listener.listen()
        code = (
            f"import os, sys; os.dup2({listener.fileno()}, 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        env = fresh.env | {"LISTEN_FDS": "1", "NOTIFY_SOCKET": str(fresh.directory / "notify")}
        fresh.process = subprocess.Popen(
            [sys.executable, "-c", code, *fresh.command()],
            env=env,
            pass_fds=[listener.fileno(), 3] if listener.fileno() != 3 else [3],
            stderr=subprocess.DEVNULL,
        )
        assert manager.recv(1000).startswith(b"READY=1")
        fresh.socket, default = path, fresh.socket
        assert fresh.ask("GET", "/_ping")[0] == 200
        assert not default.exists()
        fresh.process.terminate()
        assert manager.recv(1000) == b"STOPPING=1"
        assert fresh.process.wait(10) == 0
        assert path.exists()  # it is the service manager's
        path.unlink()
        fresh.socket = default


def test_ten_thousand_resizes_and_dropped_attaches_leave_nothing(ready: Any) -> None:
    ready.docker("run", "-d", "-t", "--name", "box", "--network", "none", "busybox", "sleep", "1000")
    monitor_and_engine = [ready.pid]
    before = [_pss_kib(pid) for pid in monitor_and_engine]
    descriptors = len(os.listdir(f"/proc/{ready.pid}/fd"))

    def resizes() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(ready.socket))
            for i in range(500):
                target = f"/containers/box/resize?h={20 + i % 50}&w=80"
                client.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
                assert client.recv(65536).startswith(b"HTTP/1.1 200")

    def attaches() -> None:
        for _ in range(250):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(ready.socket))
                client.sendall(
                    b"POST /containers/box/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
                    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
                )
                assert client.recv(65536).startswith(b"HTTP/1.1 101")

    threads = [threading.Thread(target=work) for work in (resizes, resizes, attaches, attaches)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _until(lambda: len(os.listdir(f"/proc/{ready.pid}/fd")) <= descriptors + 2)
    after = [_pss_kib(pid) for pid in monitor_and_engine]
    assert all(b - a < 16 * 1024 for a, b in zip(before, after, strict=True))
    assert ready.out("exec", "box", "echo", "fine") == "fine"


def test_an_unread_exec_holds_neither_engine_nor_memory(ready: Any) -> None:
    ready.docker("run", "-d", "--name", "box", "--network", "none", "busybox", "sleep", "1000")
    _, made = ready.ask(
        "POST",
        "/containers/box/exec",
        json.dumps({"Cmd": ["yes"], "AttachStdout": True}).encode(),
        Content_Type="application/json",
    )
    before = _pss_kib(ready.pid)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(ready.socket))
        body = b'{"Detach":false}'
        client.sendall(
            f"POST /exec/{made['Id']}/start HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
            + body
        )
        assert select.select([client], [], [], 10)[0]
        ticks = _ticks(ready.pid)
        time.sleep(1)  # nobody reads
        assert _ticks(ready.pid) - ticks <= 3
        assert _pss_kib(ready.pid) - before < 8 * 1024
        assert ready.out("ps", "-q") != ""


def test_fewer_descriptors_than_clients(fresh: Any) -> None:
    import resource

    fresh.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)))
    clients = []
    try:
        for _ in range(400):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(5)
            client.connect(str(fresh.socket))
            clients.append(client)
        statuses = []
        for client in clients[:100]:
            try:
                client.sendall(b"GET /containers/json HTTP/1.1\r\nHost: x\r\n\r\n")
            except BrokenPipeError:
                pass  # turned away already
            statuses.append(client.recv(65536)[9:12])
        assert set(statuses) == {b"200", b"503"}
    finally:
        for client in clients:
            client.close()
    _until(lambda: fresh.ask("GET", "/containers/json")[0] == 200)
