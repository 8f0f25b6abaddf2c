"""A port published at [::1] by a whole engine: open while its container runs, whoever else comes and goes."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from engines import until


def page(port: int) -> str:
    with socket.create_connection(("::1", port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with client.makefile() as reader:
            return reader.read().rpartition("\n\n")[2].strip()


def test_loopback_port_over_the_engines_restart(engine: Any, busybox: Any) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
        port = free.getsockname()[1]
    serve = "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"
    engine.proa("run", "-d", "--name", "web", "-p", f"[::1]:{port}:80", "busybox", "sh", "-c", serve)
    fetch = "wget -qO- http://127.0.0.1"
    until(lambda: engine.proa("exec", "web", "sh", "-c", fetch, check=False).stdout == b"hello\n", "the server")
    assert page(port) == "hello"
    assert engine.out("port", "web") == f"80/tcp -> [::1]:{port}"
    os.kill(engine.pid, signal.SIGKILL)
    assert page(port) == "hello"
    engine.out("ps")
    assert page(port) == "hello"
    engine.proa("rm", "-f", "web")
    with pytest.raises(ConnectionRefusedError):
        page(port)
    run = str(engine.run_dir)
    engine.proa("system", "stop")

    def relays() -> list[str]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_text(errors="replace")
            except OSError:
                continue
            if "proa relay" in command and run in command:
                found.append(entry.name)
        return found

    until(lambda: not relays(), "the relay to end")
